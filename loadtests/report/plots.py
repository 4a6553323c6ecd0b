"""The plots of a page. Plots over time show the first of several repeats; the others show all repeats or medians."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from winnow.loadtests.formatting import candidates_used, format_number
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.report.axes import seconds_axis
from winnow.loadtests.report.sweeps import sweeps
from winnow.loadtests.results import Result
from winnow.loadtests.runner import Repeat
from winnow.loadtests.scenario import Point
from winnow.models.reporting.plots import GREY, ORANGE, Plot, drawing, line_style

MAX_OVER_TIME = 8
"""Points that get plots over time, so that a long sweep does not fill the page with them."""
MARKS = {"refused": ("x", ORANGE), "failed": ("v", "#a01030"), "left": ("|", GREY)}
"""Marker and colour of each kind of request without an answer."""


def draw(result: Result) -> Iterator[Plot]:
    """Yield every plot for which the result has data."""
    used = candidates_used(result)
    first = {
        point: [found[0] for name in result.names if (found := result.of(point, name))]
        for point in result.points[:MAX_OVER_TIME]
    }
    if used:
        yield distribution(result)
        yield from sweeps(result)
    for point, repeats in first.items():
        yield over_time(point, repeats)
    if len(used) > len({point.candidates for point in result.points}):
        yield candidates_per_answer(used)
        for point, repeats in first.items():
            yield candidates_over_time(point, repeats)


def distribution(result: Result) -> Plot:
    """Plot the share of answers within each latency, a line for every point and target."""
    png = io.BytesIO()
    medians = []
    with drawing(png, "Latency of whole answers") as axes:
        for number, (point, name) in enumerate((point, name) for point in result.points for name in result.names):
            if latencies := _latencies(result, point, name):
                label = _label(result, point, name)
                shares = [100 * (rank + 1) / len(latencies) for rank in range(len(latencies))]
                axes.step(latencies, shares, where="post", label=label, **line_style(number))  # type: ignore[arg-type]
                medians.append(f"{label}: median {format_number(1000 * latencies[(len(latencies) - 1) // 2])} ms")
        if result.scenario.slo_ms:
            axes.axvline(result.scenario.slo_ms / 1000, color=GREY, linewidth=1, linestyle=":")
        seconds_axis(axes, "x", "time from when it was due")
        axes.set_ylim(0, 101)
        axes.set_ylabel("share of answers (%)")
        axes.legend(loc="best")
    slo = " The dotted line is the SLO." if result.scenario.slo_ms else ""
    return Plot(
        png.getvalue(),
        f"Cumulative distribution of latencies. {'; '.join(medians)}.",
        f"Cumulative distribution over the answers of all repeats.{slo}",
    )


def _latencies(result: Result, point: Point, target: str) -> list[float]:
    return sorted(sample.latency for repeat in result.of(point, target) for sample in _answered(repeat))


def _answered(repeat: Repeat) -> list[Sample]:
    return [sample for sample in repeat.samples if sample.reply.kind == "answered"]


def _label(result: Result, point: Point, name: str) -> str:
    parts = ([point.label] if len(result.points) > 1 else []) + ([name] if len(result.names) > 1 else [])
    return " · ".join(parts) or name


def over_time(point: Point, repeats: Sequence[Repeat]) -> Plot:
    """Plot the latency of each answer at the time when it was due, with marks for requests without one.

    `repeats` has one repeat of each target.
    """
    png = io.BytesIO()
    with drawing(png, f"Latency over time, {point.label}") as axes:
        for number, repeat in enumerate(repeats):
            _scatter(axes, repeat, [sample.latency for sample in _answered(repeat)], number)
        seconds_axis(axes, "y", "latency")
        bottom = axes.get_ylim()[0]
        for kind, (marker, colour) in MARKS.items():
            times = [
                sample.intended - repeat.start
                for repeat in repeats
                for sample in repeat.samples
                if sample.reply.kind == kind
            ]
            if times:
                axes.scatter(times, [bottom] * len(times), s=26, marker=marker, color=colour, label=kind, clip_on=False)
        axes.set_xlabel("time from the start (s)")
        axes.legend(loc="best", handletextpad=0.2)
    kinds = Counter(sample.reply.kind for repeat in repeats for sample in repeat.samples)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    return Plot(
        png.getvalue(),
        f"Latency over time at {point.label}: {counts}.",
        "The first repeat; each point is a request, at the time when it was due. Marks at the bottom got no answer.",
    )


def _scatter(axes: Axes, repeat: Repeat, values: Sequence[float], number: int) -> None:
    """Draw one value for each answer of a repeat, at the time when its request was due."""
    times = [sample.intended - repeat.start for sample in _answered(repeat)]
    colour = line_style(number)["color"]
    axes.scatter(times, values, s=9, alpha=0.6, linewidths=0, color=colour, label=repeat.target)


def candidates_per_answer(used: dict[int, int]) -> Plot:
    """Plot the number of answers for each K that was sampled."""
    png = io.BytesIO()
    with drawing(png, "Candidates per answer") as axes:
        axes.bar(list(used), list(used.values()), color=line_style(0)["color"], width=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("candidates that were sampled")
        axes.set_ylabel("answers")
    counts = ", ".join(f"{count:,} with {size}" for size, count in used.items())
    return Plot(png.getvalue(), f"Answers by candidates: {counts}.", "Over all repeats and systems.")


def candidates_over_time(point: Point, repeats: Sequence[Repeat]) -> Plot:
    """Plot the K of each answer at the time when its request was due."""
    png = io.BytesIO()
    with drawing(png, f"Candidates over time, {point.label}") as axes:
        for number, repeat in enumerate(repeats):
            _scatter(axes, repeat, [sample.reply.candidates for sample in _answered(repeat)], number)
        axes.set_ylim(0, point.candidates * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("time from the start (s)")
        axes.set_ylabel("candidates")
        axes.legend(loc="best", handletextpad=0.2)
    return Plot(png.getvalue(), f"Candidates over time at {point.label}.", "The first repeat.")
