"""`make bench-distill`: candidates a second of `winnow distill` against those of the bare engine, taken in turns.

Both sides are processes of their own, started anew for each measurement, on the same file of prompts:

- The bare side (`bare_engine_driver`) is vLLM alone, which samples the same candidates (same
  prompts, seeds and limits), all submitted at once, without decoding them to text, scoring them or
  storing them. The driver prints the seconds.
- The run is `winnow distill … --json --format none`: plans, both reward models, combiner, journal
  on disk. Its seconds are those of its last progress event, which count from the first line that is
  read to the last entry in the journal.

Neither counts the start of the engines and the warm-up, one request about another prompt, so both begin with a
cold prefix cache. A round is void if the two sides did not sample the same number of tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from winnow.loadtests.benchmarks.processes import end_with_parent
from winnow.loadtests.benchmarks.winnow_process import DistillFailed, distill, write_prompts
from winnow.models.demo.world import DemoPrompt, held_out_prompts
from winnow.models.statistics import median
from winnow.models.types import Message

TOLERANCE = 0.01
"""Relative difference of the two sides' sampled tokens: on a GPU equal seeds need not give equal answers."""


class Void(Exception):
    """A measurement that means nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """One measurement: seconds, and the tokens sampled in them."""

    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Round:
    """Both sides on the same candidates."""

    bare: Side
    run: Side

    @property
    def ratio(self) -> float:
        """The run's candidates a second over the bare engine's."""
        return self.bare.seconds / self.run.seconds


@dataclass(frozen=True, slots=True)
class Bench:
    """The two sides on one file of prompts; see the command line for the fields."""

    folder: Path
    prompts: int
    candidates: int
    max_tokens: int
    in_flight: int

    @property
    def input(self) -> Path:
        """The file of prompts."""
        return self.folder / "prompts.jsonl"

    def bare(self) -> Side:
        """Measure vLLM alone.

        Raises:
            Void: the driver failed.
        """
        command = [sys.executable, "-m", "winnow.loadtests.benchmarks.bare_engine_driver", str(self.input)]
        command += ["--candidates", str(self.candidates), "--max-tokens", str(self.max_tokens)]
        done = subprocess.run(  # noqa: S603, our own command
            command, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=end_with_parent
        )
        if done.returncode:
            raise Void(f"the bare engine's process ended with status {done.returncode}")
        return Side(**json.loads(done.stdout.splitlines()[-1]))

    def run(self, number: int) -> Side:
        """Measure `winnow distill`.

        Raises:
            DistillFailed: it ended with an error.
            Void: it did not answer every prompt.
        """
        flags = ["-k", str(self.candidates), "--temperature", "1", "--top-p", "1", "--seed", "0"]
        flags += ["--max-tokens", str(self.max_tokens), "--in-flight", str(self.in_flight)]
        events = self.folder / f"events-{number}.jsonl"
        with events.open("wb") as file:
            distill(self.input, self.folder / f"run-{number}", [*flags, "--json", "--format", "none"], stdout=file)
        return last_progress(events.read_text(encoding="utf-8"), self.prompts)

    def round(self, number: int) -> Round:
        """Measure both sides, one after the other.

        Raises:
            DistillFailed, Void: see `bare` and `run`; or the two sides sampled different candidates.
        """
        taken = Round(self.bare(), self.run(number))
        if not math.isclose(taken.bare.tokens, taken.run.tokens, rel_tol=TOLERANCE):
            raise Void(f"the bare engine sampled {taken.bare.tokens} tokens, the run {taken.run.tokens}")
        return taken


def last_progress(events: str, prompts: int) -> Side:
    """Return the figures of the last progress event of `winnow distill --json`.

    Raises:
        Void: not every prompt was answered.
    """
    progress = [event for event in map(json.loads, events.splitlines()) if event["event"] == "progress"]
    if not progress or progress[-1]["done"] != prompts:
        raise Void("the run did not answer every prompt")
    return Side(progress[-1]["seconds"], progress[-1]["tokens"])


def with_system(prompt: DemoPrompt, system: str) -> DemoPrompt:
    """Return `prompt` with a system message, unless it has one or `system` is empty."""
    if not system or prompt.messages[0].role == "system":
        return prompt
    return dataclasses.replace(prompt, messages=(Message("system", system), *prompt.messages))


def main(
    prompts: Annotated[int, typer.Option(min=1, help="Number of prompts.")] = 500,
    candidates: Annotated[int, typer.Option("--candidates", "-k", min=1, help="K.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 96,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured.")] = 3,
    in_flight: Annotated[int, typer.Option(min=1, help="Prompts in flight at once.")] = 1024,
    system: Annotated[str, typer.Option(help="A system message for prompts that have none.")] = "",
) -> None:
    """Measure the share of the bare engine's speed that an offline run keeps."""
    try:
        with tempfile.TemporaryDirectory(prefix="winnow-bench-distill-") as folder:
            bench = Bench(Path(folder), prompts, candidates, max_tokens, in_flight)
            write_prompts(bench.input, (with_system(prompt, system) for prompt in held_out_prompts(prompts)))
            done = [bench.round(number) for number in range(1, rounds + 1)]
    except (DistillFailed, Void) as error:
        sys.exit(f"bench-distill: {error}")
    show(done, prompts, candidates)


def show(rounds: list[Round], prompts: int, candidates: int) -> None:
    """Print the table."""
    table = Table("round", "bare, s", "run, s", "bare, candidates/s", "run, candidates/s", "ratio")
    total = prompts * candidates
    for number, item in enumerate(rounds, start=1):
        bare, run = item.bare.seconds, item.run.seconds
        cells = (f"{bare:.2f}", f"{run:.2f}", f"{total / bare:.0f}", f"{total / run:.0f}", f"{item.ratio:.3f}")
        table.add_row(str(number), *cells)
    ratios = [item.ratio for item in rounds]
    console = Console()
    console.print(table)
    console.print(
        f"{prompts} prompts × {candidates} candidates: ratio {median(ratios):.3f} in the middle, "
        f"{min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
