"""`python -m winnow.loadtests.benchmarks.early_stopping`: cost and saving of each early-stopping setting.

The demo models are served. Their world judges answers by itself, so true accuracy is measured beside reward.
Writes dials.md, dials.png and dials.json. The figures do not carry over to large models, whose sampling and
scoring cost differently.
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
from itertools import islice
from pathlib import Path
from statistics import fmean

from winnow.loadtests.benchmarks.early_stopping.measuring import Load, Run, measured, warm_up
from winnow.loadtests.benchmarks.early_stopping.page import COMMAND, document, markdown
from winnow.loadtests.benchmarks.early_stopping.plot import draw
from winnow.loadtests.benchmarks.early_stopping.sentences import Measurement, clients
from winnow.loadtests.benchmarks.early_stopping.settings import PLACES, Menu, menus
from winnow.loadtests.benchmarks.early_stopping.verdicts import figures
from winnow.loadtests.benchmarks.processes import ServerFailed
from winnow.loadtests.benchmarks.winnow_process import (
    DEMO_MODELS,
    DistillFailed,
    distill,
    winnow_server,
    write_prompts,
)
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.machine import machine
from winnow.loadtests.target import open_target
from winnow.models.demo.world import DemoPrompt, held_out_prompts, prompts
from winnow.models.statistics import median

PROMPTS, QUICK_PROMPTS = 150, 32
GAIN_PROMPTS, GAIN_K = 100, 32
"""Training prompts and their candidates from which the server learns what further candidates are worth."""
FLAGS = ("--max-candidates-in-flight", str(PLACES), "--max-queue-seconds", "120")
"""No request may be refused, or the loads would not be the stated ones."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Measure early stopping on the demo models.")
    parser.add_argument(
        "--prompts", type=int, help=f"held-out prompts of each run (default: {PROMPTS}; quick: {QUICK_PROMPTS})"
    )
    parser.add_argument("--quick", action="store_true", help="few settings and prompts, too few to conclude from")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts and candidates")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of dials.md, dials.png and dials.json")
    parser.add_argument("--url", help="a Winnow server on the demo models, ending in /v1; default: one is started")
    given = parser.parse_args(argv)
    given.prompts = given.prompts or (QUICK_PROMPTS if given.quick else PROMPTS)
    return given


@contextlib.contextmanager
def server(url: str | None, seed: int) -> Iterator[tuple[str, str]]:
    """Yield the address of the given server, or of one that is started, and its description for the page.

    The one that is started knows what further candidates are worth, by a run of `winnow distill`.
    """
    if url is not None:
        yield url, "A server that was running already, its settings unknown"
        return
    with tempfile.TemporaryDirectory(prefix="winnow-dials-") as folder:
        print("learning what further candidates are worth", flush=True)
        gains = learnt_gains(Path(folder), seed)
        print("starting the server", flush=True)
        with winnow_server((*DEMO_MODELS, *FLAGS, "--gains", str(gains)), Path(folder) / "serve.log") as address:
            learnt = f"the gains are those of {GAIN_PROMPTS} other prompts (`winnow distill -k {GAIN_K}`)"
            told = f"`winnow serve {' '.join(FLAGS)} --gains gains.json`, the demo models; {learnt}"
            yield f"{address}/v1", f"One server, {told}"


def learnt_gains(folder: Path, seed: int) -> Path:
    """Return the table of expected gains that `winnow distill` learns on training prompts, in `folder`."""
    asked = folder / "prompts.jsonl"
    write_prompts(asked, islice(prompts(seed, held_out=False), GAIN_PROMPTS))
    distill(asked, folder / "run", ("-k", str(GAIN_K), "--seed", str(seed), "--format", "none"))
    return folder / "run" / "gains.json"


async def measure(url: str, prompts: Sequence[DemoPrompt], menus: Sequence[Menu], seed: int) -> list[Load]:
    """Run every menu."""
    async with await open_target(url, dialect="winnow") as target:
        await warm_up(target, prompts, seed)
        return [await measured(target, prompts, menu, seed, on_run=_print) for menu in menus]


def _print(run: Run) -> None:
    text = f"{clients(run.clients)}, {run.setting.name}: {run.seconds:.1f} s"
    if answered := run.answered:
        text += (
            f", R_c {fmean(outcome.reward for outcome in answered):.3f}"
            f", p50 {median(outcome.ms for outcome in answered):.0f} ms"
            f", {fmean(outcome.tokens for outcome in answered):.0f} tokens"
        )
    print(text + (f", {run.refused:.0%} refused" if run.refused else ""), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the files."""
    given = arguments(argv)
    started = datetime.now(UTC).isoformat(timespec="minutes")
    asked = held_out_prompts(given.prompts, given.seed)
    chosen = menus(gains=given.url is None, is_quick=given.quick)
    try:
        with server(given.url, given.seed) as (url, description):
            loads = asyncio.run(measure(url, asked, chosen, given.seed))
    except (LoadTestError, ServerFailed, DistillFailed) as error:
        sys.exit(f"dials: {error}")
    rows = [figures(load, given.seed) for load in loads]
    measurement = Measurement(started, machine(), description, given.prompts, given.seed, given.quick, rows)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "dials.json").write_text(json.dumps(document(measurement), indent=1) + "\n", encoding="utf-8")
    (given.out / "dials.md").write_text(markdown(measurement), encoding="utf-8")
    (given.out / "dials.png").write_bytes(draw(measurement))
    print(f"written: {given.out / 'dials.md'}, dials.png, dials.json")


if __name__ == "__main__":
    main()
