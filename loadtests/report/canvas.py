"""One look for all plots, small enough for a telephone. pyplot, and with it any global state, is not used."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0b6e4f", "#2a6fbb", "#8b3f9e", "#cf5a1a", "#808080", "#222222")
"""One for each line; after these they begin anew, with another dash."""
DASHES = ("-", "--", ":", "-.")
REFUSED, FAILED, LEFT = "#d55e00", "#a01030", "#808080"
INK = "#222222"
SIZE = (5.2, 3.5)
DPI = 160
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlepad": 10,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A PNG, what it shows in words for who cannot see it, and what stands below it."""

    png: bytes
    alt: str
    caption: str

    @property
    def data(self) -> Markup:
        """The picture as a URI; nothing in it needs to be escaped."""
        return Markup("data:image/png;base64,") + base64.b64encode(self.png).decode()


@contextlib.contextmanager
def drawing(png: io.BytesIO, title: str) -> Iterator[Axes]:
    """Axes to draw on; when the block ends well, `png` holds the picture. The user's own matplotlib settings do not count."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=SIZE, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        yield axes
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})


def line_style(number: int) -> dict[str, str]:
    """Colour and dash of the line of that number, from 0."""
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dash}


def seconds_axis(axes: Axes, which: str, label: str) -> None:
    """A logarithmic axis of seconds, whose ticks say ms and s."""
    set_scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    set_scale("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: span(value)))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axis.set_label_text(f"{label} (logarithmic)")


def span(seconds: float) -> str:
    """As `20 ms` and `1.5 s`."""
    return f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"
