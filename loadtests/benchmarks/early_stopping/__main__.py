"""`python -m winnow.loadtests.benchmarks.early_stopping`: what each way of spending less than all K candidates costs and saves.

The demo models are served, as their world judges answers by itself: true accuracy is measured beside reward. Writes dials.md, dials.png and
dials.json. It says nothing of large models, whose sampling and scoring cost differently.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from winnow.loadtests.benchmarks.baselines.servers import ServerFailed
from winnow.loadtests.benchmarks.early_stopping.measuring import Load, Run, measured, warm_up
from winnow.loadtests.benchmarks.early_stopping.page import COMMAND, document, markdown
from winnow.loadtests.benchmarks.early_stopping.plot import draw
from winnow.loadtests.benchmarks.early_stopping.savings import mean, median
from winnow.loadtests.benchmarks.early_stopping.sentences import Measurement, clients
from winnow.loadtests.benchmarks.early_stopping.settings import FULL, PLACES, QUICK, Menu
from winnow.loadtests.benchmarks.early_stopping.verdicts import figures
from winnow.loadtests.benchmarks.shape_server import running
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.machine import machine
from winnow.loadtests.target import opened
from winnow.models.demo.world import DemoPrompt, held_out_prompts

PROMPTS, QUICK_PROMPTS = 150, 32
FLAGS = ("--max-candidates-in-flight", str(PLACES), "--max-queue-seconds", "120")
"""Of the server that is started; nobody may be refused, or the loads would not be what they say."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="What the dial buys, measured on the demo models.")
    parser.add_argument(
        "--prompts", type=int, help=f"held-out prompts of each run (default: {PROMPTS}; quick: {QUICK_PROMPTS})"
    )
    parser.add_argument("--quick", action="store_true", help="few settings and prompts, too few to conclude from")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and candidates")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of dials.md, dials.png and dials.json")
    parser.add_argument("--url", help="a Winnow server on the demo models, ending in /v1; default: one is started")
    given = parser.parse_args(argv)
    given.prompts = given.prompts or (QUICK_PROMPTS if given.quick else PROMPTS)
    return given


@contextlib.contextmanager
def server(url: str | None) -> Iterator[tuple[str, str]]:
    """The address of the given server, or of one that is started; and what the page says of it."""
    if url is not None:
        yield url, "A server that was running already, its settings not known"
        return
    with tempfile.TemporaryDirectory(prefix="winnow-dials-") as folder:
        print("starting the server", flush=True)
        with running(FLAGS, Path(folder) / "serve.log") as address:
            yield f"{address}/v1", f"One server, `winnow serve {' '.join(FLAGS)}`, the demo models"


async def measure(url: str, prompts: Sequence[DemoPrompt], menus: Sequence[Menu], seed: int) -> list[Load]:
    """Run every menu."""
    async with await opened(url, dialect="winnow") as system:
        await warm_up(system, prompts, seed)
        return [await measured(system, prompts, menu, seed, seen=_tell) for menu in menus]


def _tell(run: Run) -> None:
    answered = [outcome for outcome in run.outcomes if outcome is not None]
    told = f"{clients(run.clients)}, {run.setting.name}: {run.seconds:.1f} s"
    if answered:
        told += (
            f", R_c {mean([outcome.reward for outcome in answered]):.3f}, p50 {median([o.ms for o in answered]):.0f} ms"
            f", {mean([outcome.tokens for outcome in answered]):.0f} tokens"
        )
    print(told + (f", {run.refused:.0%} refused" if run.refused else ""), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the files."""
    given = arguments(argv)
    started = datetime.now(UTC).isoformat(timespec="minutes")
    prompts = held_out_prompts(given.prompts, given.seed)
    try:
        with server(given.url) as (url, told):
            loads = asyncio.run(measure(url, prompts, QUICK if given.quick else FULL, given.seed))
    except (LoadTestError, ServerFailed) as error:
        sys.exit(f"dials: {error}")
    measurement = Measurement(
        started, machine(), told, given.prompts, given.seed, given.quick, [figures(load, given.seed) for load in loads]
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "dials.json").write_text(json.dumps(document(measurement), indent=1) + "\n", encoding="utf-8")
    (given.out / "dials.md").write_text(markdown(measurement), encoding="utf-8")
    (given.out / "dials.png").write_bytes(draw(measurement))
    print(f"written: {given.out / 'dials.md'}, dials.png, dials.json")


if __name__ == "__main__":
    main()
