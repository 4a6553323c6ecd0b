"""The plots of a sweep: latency against throughput and against K, medians over the repeats."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from winnow.loadtests.report.axes import seconds_axis
from winnow.loadtests.results import Result
from winnow.loadtests.scenario import Point
from winnow.models.reporting.plots import Plot, drawing, line_style

PERCENTILES = (("p50", "whole_p50_ms", "-"), ("p99", "whole_p99_ms", "--"))
"""Name, quantity and dash of the lines of a plot."""


def sweeps(result: Result) -> Iterator[Plot]:
    """Yield latency against throughput if the load varies, and latency against K if K does."""
    if len({(point.rate, point.concurrency) for point in result.points}) > 1:
        yield throughput(result)
    if len({point.candidates for point in result.points}) > 1:
        yield by_candidates(result)


def throughput(result: Result) -> Plot:
    """Plot median and p99 latency against answers per second, a line for each K and target."""
    png = io.BytesIO()
    sizes = dict.fromkeys(point.candidates for point in result.points)
    with drawing(png, "Latency against throughput") as axes:
        for number, (candidates, name) in enumerate(itertools.product(sizes, result.names)):
            points = [point for point in result.points if point.candidates == candidates]
            title = " · ".join([f"K = {candidates}", *([name] if len(result.names) > 1 else [])])
            for percentile, key, dash in PERCENTILES:
                places = [_rate_and_latency(result, point, name, key) for point in points]
                _annotate_loads(axes, points, places)
                label, colour = f"{title}, {percentile}", line_style(number)["color"]
                axes.plot(*zip(*places, strict=True), marker="o", linestyle=dash, color=colour, label=label)
        seconds_axis(axes, "y", "latency")
        axes.set_xlim(left=0)
        axes.set_xlabel("answers a second")
        axes.legend(loc="best")
    return Plot(
        png.getvalue(),
        "Latency against throughput, a point for each load.",
        "A point for each load (requests offered a second, or clients), medians over the repeats. Where a line turns "
        "up or back, the system is saturated.",
    )


def _rate_and_latency(result: Result, point: Point, name: str, key: str) -> tuple[float, float]:
    """Return answers per second and a latency in seconds; NaN if nothing was answered."""
    found = result.estimates(point, name)
    return (found["answered_rate"].value, found[key].value / 1000) if key in found else (math.nan, math.nan)


def _annotate_loads(axes: Axes, points: Sequence[Point], places: Sequence[tuple[float, float]]) -> None:
    """Write the rate, or the number of clients, beside each point."""
    for point, place in zip(points, places, strict=True):
        load = f"{point.rate:g}/s" if point.rate else f"{point.concurrency}"
        axes.annotate(load, place, xytext=(5, 5), textcoords="offset points", fontsize=8)


def by_candidates(result: Result) -> Plot:
    """Plot median and p99 latency against K, a line for each load and target."""
    png = io.BytesIO()
    sizes = sorted({point.candidates for point in result.points})
    loads = dict.fromkeys((point.rate, point.concurrency) for point in result.points)
    with drawing(png, "Latency against K") as axes:
        for number, (load, name) in enumerate(itertools.product(loads, result.names)):
            points = [point for point in result.points if (point.rate, point.concurrency) == load]
            for percentile, key, dash in PERCENTILES:
                found = [(point.candidates, result.estimates(point, name).get(key)) for point in points]
                places = [(candidates, latency.value / 1000) for candidates, latency in found if latency]
                if places:
                    label = f"{percentile}{f', {name}' if len(result.names) > 1 else ''}"
                    colour = line_style(number)["color"]
                    axes.plot(*zip(*places, strict=True), marker="o", linestyle=dash, color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("K, candidates (logarithmic)")
        seconds_axis(axes, "y", "latency")
        axes.legend(loc="best")
    return Plot(png.getvalue(), "Latency against K.", "Medians over the repeats.")
