"""Formatting of results for the terminal and the page: numbers, ranges, and notes for the reader. Pure."""

from __future__ import annotations

from collections import Counter

from winnow.loadtests.results import Result
from winnow.models.statistics import Interval

UNKNOWN = "–"


def format_number(value: float | None) -> str:
    """Return a number with three digits or more, as `0.42`, `12.3` or `1,234`."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == 0 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def format_range(interval: Interval) -> str:
    """Return the range of the repeats, as `1.20 to 1.31`; empty for one repeat."""
    return f"{format_number(interval.low)} to {format_number(interval.high)}" if interval.count > 1 else ""


def notes(result: Result) -> list[str]:
    """Return the caveats of a result: interruption, a late load tester, unanswered requests, frequent errors."""
    measures = [repeat.measures for repeat in result.repeats]
    found = []
    if result.is_interrupted:
        found.append("The run was interrupted before its end; what was outstanding then is not counted.")
    if late := [each.lag.p99 for each in measures if each.lag and each.tester_was_late]:
        found.append(
            f"The tester itself was late in {len(late)} of {len(measures)} repeats "
            f"(p99 of its lag up to {format_number(1000 * max(late))} ms): "
            "latencies are the tester's as much as the system's; offer less, or run it on a machine of its own."
        )
    if any(each.refused or each.failed or each.left for each in measures):
        found.append(
            "Some requests were refused, failed or left. Latencies are those of the answered alone; goodput counts "
            "all but those who left."
        )
    errors: Counter[str] = Counter()
    for each in measures:
        errors.update(each.errors)
    found += [f"{count:,} × {error}" for error, count in errors.most_common(3)]
    return found


def explain_ranges(result: Result) -> str:
    """Return a sentence about the ranges beside the medians."""
    if result.scenario.repeats == 1:
        return "One repeat, so no ranges."
    chance = 100 * (1 - 2.0 ** (1 - result.scenario.repeats))
    return (
        f"Medians of {result.scenario.repeats} repeats, and the range from the least to the greatest, which holds the "
        f"true median with a probability of {chance:.0f} %. Percentiles are nearest-rank, from when a request was due."
    )


def candidates_used(result: Result) -> dict[int, int]:
    """Return the number of answers for each K that was sampled, over all repeats and targets."""
    counts: Counter[int] = Counter()
    for repeat in result.repeats:
        counts.update(repeat.measures.candidates_used)
    return dict(sorted(counts.items()))
