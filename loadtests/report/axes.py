"""Axes in seconds, for plots of latencies."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator


def seconds_axis(axes: Axes, which: Literal["x", "y"], label: str) -> None:
    """Make an axis logarithmic, with ticks in ms and s."""
    set_scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    set_scale("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axis.set_label_text(f"{label} (logarithmic)")
