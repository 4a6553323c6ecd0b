"""`make bench-distill`: candidates a second of an offline run against the bare engine's, in one
process, taken in turns.

Bare is vLLM generating the very same candidates (same prompts, seeds and limits), all submitted at
once, without decoding them to text, scoring them or writing them down. The run is the real one:
plans, both reward models, combiner, journal on disk.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from winnow.models.demo.world import held_out_prompts
from winnow.models.types import Message
from winnow.server.cli.main import one_line_errors
from winnow.server.distill import recipe
from winnow.server.distill.backends import InProcess
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.meter import Meter
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Choices, plan
from winnow.server.distill.records import Record
from winnow.server.distill.runner import Run
from winnow.server.service import Service, started
from winnow.server.settings import load


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds that each side took for the same candidates."""

    bare: float
    run: float

    @property
    def ratio(self) -> float:
        """The run's candidates a second over the bare engine's."""
        return self.bare / self.run


class Bench:
    """The two sides over one service, on the same tasks."""

    def __init__(self, service: Service, tasks: list[Task], choices: Choices, in_flight: int) -> None:
        rules, _ = recipe.read(None)
        self._service = service
        self._tasks = tasks
        self._plans = [plan(task, choices, rules, service.tagger) for task in tasks]
        self._plan = lambda task: plan(task, choices, rules, service.tagger)
        self._in_flight = in_flight

    async def bare(self) -> float:
        """Seconds for vLLM alone."""
        policy, template = self._service.policy, self._service.template
        draws = [draw for plan in self._plans for draw in plan.draws]
        prompts = [template.render(draw.behind) for draw in draws]
        started = time.perf_counter()
        await asyncio.gather(
            *(
                policy.generate(prompt, draw.sampling, index)  # type: ignore[attr-defined]
                for prompt, draw in zip(prompts, draws, strict=True)
                for index in range(draw.candidates)
            )
        )
        return time.perf_counter() - started

    async def run(self) -> float:
        """Seconds for the whole of an offline run, from the first line to the last entry in the
        journal.
        """
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            with Journal(Path(folder)) as journal:
                run = Run(self._plan, InProcess(self._service), journal, Meter(len(self._tasks)), self._in_flight)
                await run(self._tasks)
            seconds = time.perf_counter() - started
            if sum(isinstance(entry, Record) for entry in read(Path(folder))) != len(self._tasks):
                raise RuntimeError("the run did not answer every prompt: its time means nothing")
        return seconds

    async def rounds(self, count: int) -> list[Round]:
        """Take turns, after a warm-up of both sides."""
        await self._service.warm_up()
        await self.run()
        return [Round(await self.bare(), await self.run()) for _ in range(count)]


def tasks(count: int, system: str) -> list[Task]:
    """Held-out prompts of the demo world; `system` is put before those that have no system message
    of their own.
    """
    asked = [prompt.messages for prompt in held_out_prompts(count)]
    opening = (Message("system", system),) if system else ()
    return [
        Task(line, "demo", line, None, "", messages if messages[0].role == "system" else (*opening, *messages))
        for line, messages in enumerate(asked, start=1)
    ]


def main(
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts.")] = 500,
    candidates: Annotated[int, typer.Option("--candidates", "-k", min=1, help="K.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 96,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured.")] = 3,
    in_flight: Annotated[int, typer.Option(min=1, help="Prompts under way at once.")] = 1024,
    system: Annotated[str, typer.Option(help="A system message for prompts that have none.")] = "",
) -> None:
    """Measure how much of the bare engine's speed an offline run keeps."""
    with one_line_errors(), started(load()) as service:
        choices = Choices(candidates, (service.settings.temperature,), False, 1.0, max_tokens, "llama2", 0)
        bench = Bench(service, tasks(prompts, system), choices, in_flight)
        done = asyncio.run(bench.rounds(rounds))
    table = Table("round", "bare, s", "run, s", "bare, candidates/s", "run, candidates/s", "ratio")
    total = prompts * candidates
    for number, item in enumerate(done, start=1):
        cells = (f"{item.bare:.2f}", f"{item.run:.2f}", f"{total / item.bare:.0f}", f"{total / item.run:.0f}")
        table.add_row(str(number), *cells, f"{item.ratio:.3f}")
    console = Console()
    console.print(table)
    ratios = sorted(item.ratio for item in done)
    console.print(
        f"{prompts} prompts × {candidates} candidates: ratio {ratios[len(ratios) // 2]:.3f} in the middle, "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
