"""Shows how far a load test has come: a live bar in a terminal, plain lines elsewhere; on standard error."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from winnow.loadtests.formatting import figure
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.runner import Repeat, Watch

SECONDS = 10.0
"""Between two lines where there is no bar."""


@contextmanager
def watching() -> Iterator[Watch]:
    """A watch that shows what it sees, for the length of the block."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[counts]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


class Lines(Watch):
    """A line every ten seconds, and one for each repeat."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._told = "", time.monotonic()
        self._kinds: Counter[str] = Counter()

    def begins(self, title: str, requests: int | None) -> None:
        """A repeat, or a warm-up, begins."""
        self._title, self._told = title, time.monotonic()
        self._kinds.clear()

    def seen(self, sample: Sample) -> None:
        """A request has ended."""
        self._kinds[sample.reply.kind] += 1
        if time.monotonic() >= self._told + SECONDS:
            self._told = time.monotonic()
            self._tell(f"{self._title}: {counts(self._kinds)}")

    def ends(self, repeat: Repeat) -> None:
        """A repeat has ended."""
        self._tell(f"{self._title}: {_told(repeat)}")

    def _tell(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class Bar(Watch):
    """A bar for the repeat that runs, and a line above it for each that has ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", counts="")
        self._title = ""
        self._kinds: Counter[str] = Counter()

    def begins(self, title: str, requests: int | None) -> None:
        """A repeat, or a warm-up, begins."""
        self._title = title
        self._kinds.clear()
        self._progress.update(self._task, description=title, total=requests, completed=0, counts="")

    def seen(self, sample: Sample) -> None:
        """A request has ended."""
        self._kinds[sample.reply.kind] += 1
        self._progress.update(self._task, advance=1, counts=counts(self._kinds))

    def ends(self, repeat: Repeat) -> None:
        """A repeat has ended."""
        self._progress.console.print(Text(f"{self._title}: {_told(repeat)}"))


def counts(kinds: Counter[str]) -> str:
    """As `12 answered · 1 refused`."""
    return " · ".join(f"{count:,} {kind}" for kind, count in kinds.items())


def _told(repeat: Repeat) -> str:
    measures = repeat.measures
    kinds = Counter({kind: getattr(measures, kind) for kind in ("answered", "refused", "failed", "left")})
    median = f" · p50 {figure(1000 * measures.whole.p50)} ms" if measures.whole else ""
    return f"{counts(+kinds)} · {figure(measures.answered_rate)} answers/s{median}"
