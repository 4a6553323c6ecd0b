"""The plots of a sweep: latency against throughput, and against K. Medians over the repeats."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from winnow.loadtests.report.canvas import Plot, drawing, line_style, seconds_axis
from winnow.loadtests.results import Result
from winnow.loadtests.scenario import Point


def sweeps(result: Result) -> Iterator[Plot]:
    """Throughput against latency where the load varies, latency against K where K does."""
    if len({(point.rate, point.concurrency) for point in result.points}) > 1:
        yield throughput(result)
    if len({point.candidates for point in result.points}) > 1:
        yield by_candidates(result)


def throughput(result: Result) -> Plot:
    """Median and p99 latency against answers a second, a line for each K and system."""
    png = io.BytesIO()
    with drawing(png, "Latency against throughput") as axes:
        number = 0
        for candidates in dict.fromkeys(point.candidates for point in result.points):
            points = [point for point in result.points if point.candidates == candidates]
            for name in result.names:
                label = " · ".join([f"K = {candidates}", *([name] if len(result.names) > 1 else [])])
                for key, dash in (("whole_p50_ms", "-"), ("whole_p99_ms", "--")):
                    found = [result.estimates(point, name) for point in points]
                    places = [
                        (each["answered_rate"].median, each[key].median / 1000) if key in each else (math.nan, math.nan)
                        for each in found
                    ]
                    if places:
                        _name_loads(axes, points, places)
                        axes.plot(
                            *zip(*places, strict=True), marker="o", linestyle=dash, color=line_style(number)["color"],
                            label=f"{label}, {key[6:9]}",
                        )  # fmt: skip
                number += 1
        seconds_axis(axes, "y", "latency")
        axes.set_xlim(left=0)
        axes.set_xlabel("answers a second")
        axes.legend(loc="best")
    return Plot(
        png.getvalue(),
        "Latency against throughput, a point for each load.",
        "A point for each load (requests offered a second, or clients), medians over the repeats. Where a line turns up or back, the "
        "system is saturated.",
    )


def _name_loads(axes: Axes, points: Sequence[Point], places: Sequence[tuple[float, float]]) -> None:
    """Write the rate, or the number of clients, beside each point."""
    for point, place in zip(points, places, strict=False):
        load = f"{point.rate:g}/s" if point.rate else f"{point.concurrency}"
        axes.annotate(load, place, xytext=(5, 5), textcoords="offset points", fontsize=8)


def by_candidates(result: Result) -> Plot:
    """Median and p99 latency against K, a line for each load and system."""
    png = io.BytesIO()
    sizes = sorted({point.candidates for point in result.points})
    with drawing(png, "Latency against K") as axes:
        number = 0
        for load in dict.fromkeys((point.rate, point.concurrency) for point in result.points):
            points = [point for point in result.points if (point.rate, point.concurrency) == load]
            for name in result.names:
                for key, dash in (("whole_p50_ms", "-"), ("whole_p99_ms", "--")):
                    places = [
                        (point.candidates, found[key].median / 1000)
                        for point in points
                        if key in (found := result.estimates(point, name))
                    ]
                    if places:
                        label = f"{key[6:9]}{f', {name}' if len(result.names) > 1 else ''}"
                        colour = line_style(number)["color"]
                        axes.plot(*zip(*places, strict=True), marker="o", linestyle=dash, color=colour, label=label)
                number += 1
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("K, candidates (logarithmic)")
        seconds_axis(axes, "y", "latency")
        axes.legend(loc="best")
    return Plot(png.getvalue(), "Latency against K.", "Medians over the repeats.")
