"""Parts of the generated pages: Markdown tables, figures with their intervals, and plots side by side."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from winnow.models.reporting.plots import styled
from winnow.models.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNKNOWN = "—"
"""Stands for a figure that was not measured, and for the end of an interval that lies beyond what was."""
SIZE, DPI = (12.0, 3.8), 130


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_interval(interval: Interval | None, shown: Callable[[float], str]) -> str:
    """Return `value (low to high)`, each number as `shown` writes it."""
    if interval is None:
        return UNKNOWN
    low, high = (shown(end) if math.isfinite(end) else UNKNOWN for end in (interval.low, interval.high))
    return f"{shown(interval.value)} ({low} to {high})"


def percent(share: float) -> str:
    """Return a share as `12.3 %`."""
    return f"{100 * share:.1f} %"


@contextlib.contextmanager
def panels(path: Path, count: int, title: str = "", size: tuple[float, float] = SIZE) -> Iterator[Sequence[Axes]]:
    """Yield `count` axes side by side, and write them to `path` as a PNG if the block raises no exception."""
    with styled():
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title)
        yield list(figure.subplots(1, count, squeeze=False)[0])
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
