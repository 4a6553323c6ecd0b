"""The plots of a page. Of several repeats those over time show the first; the others show all together, or medians."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence

from matplotlib.ticker import MaxNLocator

from winnow.loadtests.formatting import figure, used
from winnow.loadtests.report.canvas import FAILED, LEFT, REFUSED, Plot, drawing, line_style, seconds_axis
from winnow.loadtests.report.sweeps import sweeps
from winnow.loadtests.results import Result
from winnow.loadtests.runner import Repeat
from winnow.loadtests.scenario import Point

MOST_OVER_TIME = 8
"""Plots over time; a sweep of many points would make a page of nothing else."""
MARKS = {"refused": ("x", REFUSED), "failed": ("v", FAILED), "left": ("|", LEFT)}


def draw(result: Result) -> Iterator[Plot]:
    """Every plot that the result has something for."""
    if used(result):
        yield distribution(result)
        yield from sweeps(result)
    for point in result.points[:MOST_OVER_TIME]:
        if repeats := [found[0] for name in result.names if (found := result.of(point, name))]:
            yield over_time(point, repeats)
    if len(used(result)) > len({point.candidates for point in result.points}):
        yield candidates_used(result)
        for point in result.points[:MOST_OVER_TIME]:
            yield candidates_over_time(point, [found[0] for name in result.names if (found := result.of(point, name))])


def _latencies(result: Result, point: Point, system: str) -> list[float]:
    return sorted(
        sample.latency
        for repeat in result.of(point, system)
        for sample in repeat.samples
        if sample.reply.kind == "answered"
    )


def distribution(result: Result) -> Plot:
    """The share of answers that were there within a time, for every point and system."""
    png, told = io.BytesIO(), []
    with drawing(png, "Latency of whole answers") as axes:
        number = 0
        for point in result.points:
            for name in result.names:
                if spans := _latencies(result, point, name):
                    label = _label(result, point, name)
                    shares = [100 * (place + 1) / len(spans) for place in range(len(spans))]
                    axes.step(spans, shares, where="post", label=label, **line_style(number))  # type: ignore[arg-type]
                    told.append(f"{label}: median {figure(1000 * spans[(len(spans) - 1) // 2])} ms")
                number += 1
        if result.scenario.slo_ms:
            axes.axvline(result.scenario.slo_ms / 1000, color=LEFT, linewidth=1, linestyle=":")
        seconds_axis(axes, "x", "time from when it was due")
        axes.set_ylim(0, 101)
        axes.set_ylabel("share of answers (%)")
        axes.legend(loc="best")
    slo = " The dotted line is the SLO." if result.scenario.slo_ms else ""
    return Plot(
        png.getvalue(),
        f"Cumulative distribution of latencies. {'; '.join(told)}.",
        f"Cumulative distribution over the answers of all repeats.{slo}",
    )


def _label(result: Result, point: Point, name: str) -> str:
    parts = ([point.label] if len(result.points) > 1 else []) + ([name] if len(result.names) > 1 else [])
    return " · ".join(parts) or name


def over_time(point: Point, repeats: Sequence[Repeat]) -> Plot:
    """Each answer's latency at the time when it was due, and marks for those that got none. One repeat of each system."""
    png = io.BytesIO()
    kinds: Counter[str] = Counter()
    with drawing(png, f"Latency over time, {point.label}") as axes:
        for number, repeat in enumerate(repeats):
            answered = [sample for sample in repeat.samples if sample.reply.kind == "answered"]
            times = [sample.intended - repeat.start for sample in answered]
            colour = line_style(number)["color"]
            spans = [sample.latency for sample in answered]
            axes.scatter(times, spans, s=9, alpha=0.6, linewidths=0, color=colour, label=repeat.system)
            kinds.update(sample.reply.kind for sample in repeat.samples)
        seconds_axis(axes, "y", "latency")
        height = axes.get_ylim()[0]
        for kind, (marker, colour) in MARKS.items():
            times = [
                sample.intended - repeat.start
                for repeat in repeats
                for sample in repeat.samples
                if sample.reply.kind == kind
            ]
            if times:
                axes.scatter(times, [height] * len(times), s=26, marker=marker, color=colour, label=kind, clip_on=False)
        axes.set_xlabel("time from the start (s)")
        axes.legend(loc="best", handletextpad=0.2)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    return Plot(
        png.getvalue(),
        f"Latency over time at {point.label}: {told}.",
        "The first repeat; each point is a request, at the time when it was due. Marks at the bottom got no answer.",
    )


def candidates_used(result: Result) -> Plot:
    """How many answers had how many candidates."""
    png, counts = io.BytesIO(), used(result)
    with drawing(png, "Candidates behind an answer") as axes:
        axes.bar(list(counts), list(counts.values()), color=line_style(0)["color"], width=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("candidates that were sampled")
        axes.set_ylabel("answers")
    told = ", ".join(f"{count:,} with {size}" for size, count in counts.items())
    return Plot(png.getvalue(), f"Answers by candidates: {told}.", "Over all repeats and systems.")


def candidates_over_time(point: Point, repeats: Sequence[Repeat]) -> Plot:
    """How many candidates each answer had, at the time when its request was due."""
    png = io.BytesIO()
    with drawing(png, f"Candidates over time, {point.label}") as axes:
        for number, repeat in enumerate(repeats):
            answered = [sample for sample in repeat.samples if sample.reply.kind == "answered"]
            axes.scatter(
                [sample.intended - repeat.start for sample in answered],
                [sample.reply.candidates for sample in answered],
                s=9, alpha=0.6, linewidths=0, color=line_style(number)["color"], label=repeat.system,
            )  # fmt: skip
        axes.set_ylim(0, point.candidates * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("time from the start (s)")
        axes.set_ylabel("candidates")
        axes.legend(loc="best", handletextpad=0.2)
    return Plot(png.getvalue(), f"Candidates over time at {point.label}.", "The first repeat.")
