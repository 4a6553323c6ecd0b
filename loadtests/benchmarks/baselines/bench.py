"""`make bench`: Winnow against plain vLLM and against other implementations of best-of-K.

Models, prompts and lengths are equal. All servers are up from beginning to end. In each round every system is
asked in turn, in an order that rotates, with a pause before each: an idle vLLM worker spins for about a second.
Ratios are taken within a round. The load is offered from this process, on the same cores.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from winnow.loadtests.benchmarks.baselines import agreement, page
from winnow.loadtests.benchmarks.baselines.facts import describe
from winnow.loadtests.benchmarks.baselines.figures import Figures, Run, Scene
from winnow.loadtests.benchmarks.baselines.fleet import NAMES, Fleet, started_fleet
from winnow.loadtests.benchmarks.baselines.prompts import held_out_requests
from winnow.loadtests.benchmarks.processes import ServerFailed
from winnow.loadtests.load_generator import closed_loop
from winnow.loadtests.types import Request, Target

SETTLE_SECONDS = 1.5
DRAIN_SECONDS = 130.0
"""Longer than any system's own timeout."""
SLOW = frozenset({"one-by-one", "optillm", "transformers"})
CHECKED_PROMPTS = 20
LOG_WIDTH = 200
"""Columns of the tables if standard output is not a terminal."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The rounds. `eos_id` is banned, so that all answers are equally long; None leaves them their natural lengths."""

    systems: Sequence[Target]
    scenes: Sequence[Scene]
    eos_id: int | None
    console: Console

    async def rounds(self, count: int) -> Figures:
        """Warm every system up, then measure `count` rounds."""
        for scene in self.scenes:
            for system in self.systems:
                requests = self._requests(scene, 0)[: 2 * min(scene.clients, 4)]
                await closed_loop(system, requests, scene.clients, drain=DRAIN_SECONDS)
        runs = []
        for number in range(1, count + 1):
            for scene in self.scenes:
                for place in range(len(self.systems)):
                    system = self.systems[(place + number) % len(self.systems)]
                    runs.append(await self._run(system, scene, number))
        return Figures(tuple(runs))

    def _requests(self, scene: Scene, number: int) -> list[Request]:
        return held_out_requests(scene.requests, scene.candidates, seed=number, eos_id=self.eos_id)

    async def _run(self, system: Target, scene: Scene, number: int) -> Run:
        requests = self._requests(scene, number)[: scene.slow_requests if system.name in SLOW else None]
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        samples = await closed_loop(system, requests, scene.clients, drain=DRAIN_SECONDS)
        seconds = time.perf_counter() - began
        answered = [sample for sample in samples if sample.reply.kind == "answered"]
        errors = [sample.reply.error for sample in samples if sample.reply.kind != "answered"]
        run = Run(
            scene.name,
            system.name,
            number,
            seconds,
            tuple(sample.reply.done - sample.sent for sample in answered),
            sum(sample.reply.sampled_tokens or 0 for sample in answered),
            len(errors),
            tuple(sorted((sample.number, sample.reply.text.strip()) for sample in answered)),
        )
        figures = f"p50 {run.p50 * 1000:,.0f} ms, {run.requests_per_second:.2f} requests/s"
        error = f"; {errors[0]}" if errors else ""
        self.console.print(f"round {number} · {scene.title} · {system.name}: {figures}{error}", markup=False)
        return run


def scenes(requests: int, clients: int, candidates: int) -> tuple[Scene, ...]:
    """Return one client with K, a crowd with half of it, and one client with a single candidate."""
    return (
        Scene("one", 1, candidates, requests, max(2, requests // 4)),
        Scene("crowd", clients, max(1, candidates // 2), 3 * clients, max(4, clients // 2)),
        Scene("single", 1, 1, 2 * requests, max(2, requests // 2)),
    )


async def measure(fleet: Fleet, bench: Bench, rounds: int) -> page.Measured:
    """Check that Winnow and the client-side scorer agree, if both run, and measure the systems."""
    async with fleet.connected():
        checked = None
        if {"winnow", "safety-rm"} <= fleet.urls.keys():
            requests = held_out_requests(CHECKED_PROMPTS, bench.scenes[0].candidates, seed=99, eos_id=bench.eos_id)
            checked = await agreement.check(fleet, requests)
            bench.console.print(f"scores agree: {checked}")
        return page.Measured(await bench.rounds(rounds), bench.scenes, fleet.missing, checked, bench.eos_id is not None)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds, each with every system.")] = 5,
    requests: Annotated[int, typer.Option(min=1, help="Requests in a round with one client.")] = 12,
    clients: Annotated[int, typer.Option(min=2, help="Clients of the crowd, each of which waits for its answer.")] = 32,
    candidates: Annotated[
        int, typer.Option("--candidates", "-k", min=2, help="K; the crowd asks for half of it.")
    ] = 16,
    systems: Annotated[str, typer.Option(help="Systems to measure, with commas.")] = ",".join(NAMES),
    natural: Annotated[bool, typer.Option("--natural", help="Leave answers their natural lengths.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One round with few requests, as a trial run.")] = False,
    peers: Annotated[Path, typer.Option(help="The environment of its_hub and optillm.")] = Path(".peers"),
    out: Annotated[Path, typer.Option(help="The page; figures and plot go beside it.")] = Path("docs/benchmarks.md"),
) -> None:
    """Compare Winnow with its baselines, and write the page."""
    names = [name.strip() for name in systems.split(",") if name.strip()]
    if unknown := [name for name in names if name not in NAMES]:
        raise typer.BadParameter(f"there is no system {unknown[0]!r}; there are {', '.join(NAMES)}")
    chosen = scenes(3, min(clients, 8), candidates) if quick else scenes(requests, clients, candidates)
    out.parent.mkdir(parents=True, exist_ok=True)  # fail now rather than in half an hour
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    facts = describe(peers)
    try:
        with started_fleet(names, {scene.candidates for scene in chosen}, peers, console.print) as fleet:
            for name, reason in fleet.missing.items():
                console.print(f"{name} does not run: {reason}")
            bench = Bench(fleet.systems, chosen, None if natural else fleet.render.eos_id, console)
            measured = asyncio.run(measure(fleet, bench, 1 if quick else rounds))
    except ServerFailed as error:
        sys.exit(f"bench: {error}")
    page.show(measured, console)
    for path in page.write(measured, facts, out):
        console.print(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
