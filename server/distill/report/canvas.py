"""One look for all plots of a report, and PNGs whose bytes depend on the data alone.

Plots are small enough to stand one below the other on a telephone. pyplot, and with it any global state, is not used.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from winnow.models.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEN, BLUE, ORANGE, GREY = "#0b6e4f", "#2a6fbb", "#d55e00", "#808080"
"""Told apart by people who see colours otherwise, and by their lightness in print."""
COOL_TO_WARM = LinearSegmentedColormap.from_list("temperature", ["#1f5fa8", "#8b3f9e", "#cf5a1a"])
"""For temperatures: of one lightness, so that no line fades when a dark page turns the light around."""
INK = "#222222"
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


@contextlib.contextmanager
def drawing(png: io.BytesIO, title: str, height: float = SIZE[1]) -> Iterator[Axes]:
    """Axes to draw on; when the block ends well, `png` holds the picture. The user's own matplotlib settings do not count."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(SIZE[0], height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        yield axes
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})


def line(axes: Axes, places: Sequence[float], intervals: Sequence[Interval], colour: str, dashed: bool = False) -> None:
    """Means joined by a line, with a band for their intervals; hollow where fewer than half of the prompts count."""
    most = max((item.prompts for item in intervals), default=0)
    axes.plot(places, [item.mean for item in intervals], color=colour, linestyle="--" if dashed else "-")
    lows, highs = [item.low for item in intervals], [item.high for item in intervals]
    axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
    for place, item in zip(places, intervals, strict=True):
        face = colour if 2 * item.prompts >= most else "white"
        axes.plot([place], [item.mean], marker="o", color=colour, markerfacecolor=face)


def label_ends(axes: Axes, place: float, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write (label, height, colour) to the right of `place`, moved apart where they would lie upon each other.

    The limits of the axes have to be set before.
    """
    low, high = axes.get_ylim()
    gap = (high - low) * 0.075
    ordered = sorted(ends, key=lambda end: end[1])
    for (label, _, colour), height in zip(ordered, apart([end[1] for end in ordered], gap, high), strict=True):
        axes.annotate(
            label,
            (place, height),
            xytext=(9, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def apart(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Ascending heights at least `gap` apart and not above `top`, each crowd about where its middle was."""
    crowds: list[list[float]] = []
    for height in heights:
        crowds.append([height])
        while len(crowds) > 1 and _spread(crowds[-2], gap, top)[-1] + gap > _spread(crowds[-1], gap, top)[0]:
            last = crowds.pop()
            crowds[-1] += last
    return [height for crowd in crowds for height in _spread(crowd, gap, top)]


def _spread(crowd: Sequence[float], gap: float, top: float) -> list[float]:
    span = gap * (len(crowd) - 1)
    start = min(sum(crowd) / len(crowd) - span / 2, top - span)
    return [start + gap * place for place in range(len(crowd))]


def ticks_of_n(axes: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis of N with a tick for each; K is left off where it would touch the power of two before it."""
    shown = [size for size in sizes if size & (size - 1) == 0 or size == sizes[-1]]
    if len(shown) > 1 and shown[-1] < 1.4 * shown[-2]:
        del shown[-2]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.minorticks_off()
    axes.set_xlabel("N, candidates to choose from (logarithmic)")
    if len(sizes) == 1:
        axes.set_xlim(0.5, 2)


def room(axes: Axes, intervals: Sequence[Interval]) -> None:
    """Limits of R_c, within (0, 1), with some air around what is drawn."""
    low, high = min(item.low for item in intervals), max(item.high for item in intervals)
    air = max(0.02, 0.08 * (high - low))
    axes.set_ylim(max(0.0, low - air), min(1.0, high + air) + 0.001)
