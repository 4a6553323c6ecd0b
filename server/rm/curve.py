"""The training curve: journaled step by step, so that a resumed run has all of it, and drawn as SVG."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MOST_POINTS = 300
"""Points of a line on the page."""
WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 12, 30
"""The margins of a drawing, for its labels."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step: loss, accuracy (None without comparisons) and learning rate."""

    step: int
    loss: float
    accuracy: float | None
    learning_rate: float


class Journal:
    """The points of a run, in a file of JSON lines; steps that were repeated after an interruption count once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if self._file.tell() and path.read_bytes()[-1:] != b"\n":
            self._file.write(b"\n")  # a line that a kill cut off

    def add(self, point: Point) -> None:
        """Append a point."""
        self._file.write(json.dumps(asdict(point)).encode() + b"\n")

    def close(self) -> None:
        """Flush the file and close it."""
        os.fsync(self._file.fileno())
        self._file.close()

    def points(self) -> list[Point]:
        """Return the points by step."""
        found: dict[int, Point] = {}
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                point = Point(**json.loads(line))
            except (ValueError, TypeError):
                continue  # cut off
            found[point.step] = point
        return [found[step] for step in sorted(found)]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A line in an SVG of WIDTH by HEIGHT: its points, and labelled heights and places."""

    title: str
    alt: str
    line: str
    heights: Sequence[tuple[float, str]]
    places: Sequence[tuple[float, str]]


def drawings(points: Sequence[Point]) -> Iterator[Drawing]:
    """Yield the drawings of a training: loss, accuracy, learning rate; none of no steps."""
    shown = _thinned(points)
    if not shown:
        return
    yield _drawing("Loss", [(point.step, point.loss) for point in shown], lambda value: f"{value:.3g}")
    rates = [(point.step, point.accuracy) for point in shown if point.accuracy is not None]
    if rates:
        yield _drawing("Accuracy on the comparisons trained on", rates, lambda value: f"{100 * value:.0f} %", 1.0)
    yield _drawing(
        "Learning rate", [(point.step, point.learning_rate) for point in shown], lambda value: f"{value:.1e}"
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most MOST_POINTS of the points, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return list(points)
    return [points[round(place * (len(points) - 1) / (MOST_POINTS - 1))] for place in range(MOST_POINTS)]


def _drawing(
    title: str, values: Sequence[tuple[int, float]], text: Callable[[float], str], most: float = math.inf
) -> Drawing:
    finite = [value for _, value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low == high:
        half = max(abs(low), 1e-9) / 2 if low else 0.5
        low, high = low - half, min(high + half, most)
    first, last = values[0][0], max(values[-1][0], values[0][0] + 1)

    def height(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP), 1)

    def place(step: int) -> float:
        return round(LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)

    line = " ".join(f"{place(step)},{height(value)}" for step, value in values if math.isfinite(value))
    middle = (first + last) // 2
    steps = dict.fromkeys((first, middle, values[-1][0]))
    return Drawing(
        title,
        f"{title} by step, from {text(values[0][1])} to {text(values[-1][1])}.",
        line,
        [(height(value), text(value)) for value in (low, (low + high) / 2, high)],
        [(place(step), f"{step:,}") for step in steps],
    )
