"""Progress of a load test on standard error: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from winnow.loadtests.formatting import format_number
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.runner import Observer, Repeat
from winnow.loadtests.streams import SafeStream, console

LINE_SECONDS = 10.0
"""Seconds between two lines of progress within a repeat, where there is no bar."""


@contextmanager
def show_progress() -> Iterator[Observer]:
    """Yield an observer that shows the progress while the block runs."""
    shown = console(SafeStream(sys.stderr))
    if not shown.is_terminal:
        yield Lines(shown)
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=max(4, shown.width // 5)),
        TextColumn("{task.fields[counts]}", markup=False),
    )
    with Progress(*columns, console=shown, transient=True, expand=True) as progress:
        yield Bar(progress)


class Lines(Observer):
    """Prints a line every LINE_SECONDS, and one for each repeat."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._printed = "", time.monotonic()
        self._kinds: Counter[str] = Counter()

    def on_start(self, title: str, requests: int | None) -> None:
        """Start counting anew."""
        self._title, self._printed = title, time.monotonic()
        self._kinds.clear()

    def on_sample(self, sample: Sample) -> None:
        """Count a request, and print a line if one is due."""
        self._kinds[sample.reply.kind] += 1
        if time.monotonic() >= self._printed + LINE_SECONDS:
            self._printed = time.monotonic()
            self._print(f"{self._title}: {_counts(self._kinds)}")

    def on_repeat(self, repeat: Repeat) -> None:
        """Print a summary of the repeat."""
        self._print(f"{self._title}: {_summary(repeat)}")

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class Bar(Observer):
    """Shows a bar for the running repeat, and a line above it for each that has ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", counts="")
        self._title = ""
        self._kinds: Counter[str] = Counter()

    def on_start(self, title: str, requests: int | None) -> None:
        """Reset the bar."""
        self._title = title
        self._kinds.clear()
        self._progress.update(self._task, description=title, total=requests, completed=0, counts="")

    def on_sample(self, sample: Sample) -> None:
        """Advance the bar."""
        self._kinds[sample.reply.kind] += 1
        self._progress.update(self._task, advance=1, counts=_counts(self._kinds))

    def on_repeat(self, repeat: Repeat) -> None:
        """Print a summary of the repeat above the bar."""
        self._progress.console.print(Text(f"{self._title}: {_summary(repeat)}"))


def _counts(kinds: Counter[str]) -> str:
    """Return the counts as `12 answered · 1 refused`."""
    return " · ".join(f"{count:,} {kind}" for kind, count in kinds.items())


def _summary(repeat: Repeat) -> str:
    measures = repeat.measures
    kinds = Counter({kind: getattr(measures, kind) for kind in ("answered", "refused", "failed", "left")})
    median = f" · p50 {format_number(1000 * measures.whole.p50)} ms" if measures.whole else ""
    return f"{_counts(+kinds)} · {format_number(measures.answered_rate)} answers/s{median}"
