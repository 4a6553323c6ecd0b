"""One look for the plots of all reports, and PNGs whose bytes depend on the data alone.

Plots are small enough to stand one below the other on a telephone. pyplot, and with it any global state,
is not used.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from winnow.models.statistics import Interval

INK, GREEN, BLUE, PURPLE, ORANGE, GREY = "#222222", "#0b6e4f", "#2a6fbb", "#8b3f9e", "#d55e00", "#808080"
"""Readers with colour blindness can tell them apart, and in black and white they differ in lightness."""
COLOURS = (GREEN, BLUE, PURPLE, ORANGE, GREY, INK)
"""The colours of numbered lines, in order; after the last they repeat with the next dash."""
DASHES = ("-", "--", ":", "-.")
SIZE = (5.2, 3.5)
DPI = 180
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlepad": 10,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A PNG, its alternative text, the caption below it, and a name to find it by (its file name without `.png`)."""

    png: bytes
    alt: str
    caption: str = ""
    name: str = ""

    @property
    def data(self) -> Markup:
        """The picture as a data URI; it holds nothing that needs escaping."""
        return Markup("data:image/png;base64,") + base64.b64encode(self.png).decode()


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw with `STYLE` inside the block, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


@contextlib.contextmanager
def drawing(png: io.BytesIO, title: str, height: float = SIZE[1]) -> Iterator[Axes]:
    """Yield axes to draw on; `png` holds the picture when the block has ended without an exception."""
    with styled():
        figure = Figure(figsize=(SIZE[0], height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        yield axes
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})


def line_style(number: int) -> dict[str, str]:
    """Return colour and dash of line `number`, from 0, as keyword arguments of matplotlib."""
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dash}


def draw_intervals(
    axes: Axes, places: Sequence[float], intervals: Sequence[Interval], colour: str, dashed: bool = False
) -> None:
    """Draw values joined by a line, with a band for their intervals.

    A point is hollow if it rests on fewer than half as many prompts as the one with the most.
    """
    most = max((item.count for item in intervals), default=0)
    axes.plot(places, [item.value for item in intervals], color=colour, linestyle="--" if dashed else "-")
    lows, highs = [item.low for item in intervals], [item.high for item in intervals]
    axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
    for place, item in zip(places, intervals, strict=True):
        face = colour if 2 * item.count >= most else "white"
        axes.plot([place], [item.value], marker="o", color=colour, markerfacecolor=face)


def label_ends(axes: Axes, place: float, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write each (label, height, colour) to the right of `place`, moved apart if they would overlap.

    The limits of the axes must be set before.
    """
    low, high = axes.get_ylim()
    gap = (high - low) * 0.075
    ordered = sorted(ends, key=lambda end: end[1])
    for (label, _, colour), height in zip(ordered, spread([end[1] for end in ordered], gap, high), strict=True):
        axes.annotate(
            label,
            (place, height),
            xytext=(9, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Return ascending heights at least `gap` apart and not above `top`; each cluster stays around its middle."""
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and _placed(clusters[-2], gap, top)[-1] + gap > _placed(clusters[-1], gap, top)[0]:
            last = clusters.pop()
            clusters[-1] += last
    return [height for cluster in clusters for height in _placed(cluster, gap, top)]


def _placed(cluster: Sequence[float], gap: float, top: float) -> list[float]:
    height = gap * (len(cluster) - 1)
    start = min(sum(cluster) / len(cluster) - height / 2, top - height)
    return [start + gap * place for place in range(len(cluster))]
