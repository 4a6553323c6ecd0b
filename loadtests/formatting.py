"""How results are written, in the terminal and on the page: numbers, ranges, and what a reader has to know. Pure."""

from __future__ import annotations

from collections import Counter

from winnow.loadtests.estimates import Estimate
from winnow.loadtests.results import Result

NOTHING = "–"


def figure(value: float | None) -> str:
    """Three digits or more, as `0.42`, `12.3` and `1,234`."""
    if value is None:
        return NOTHING
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == 0 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def span(estimate: Estimate) -> str:
    """Least to greatest, as `1.20 to 1.31`; nothing of one repeat."""
    return f"{figure(estimate.low)} to {figure(estimate.high)}" if estimate.repeats > 1 else ""


def notes(result: Result) -> list[str]:
    """What to beware of."""
    whole = [repeat.measures for repeat in result.repeats]
    found = []
    if result.is_interrupted:
        found.append("The run was interrupted; what was outstanding then is not counted.")
    if late := [measures.lag.p99 for measures in whole if measures.lag and measures.tester_was_late]:
        found.append(
            f"The tester itself was late in {len(late)} of {len(whole)} repeats (p99 of its lag up to {figure(1000 * max(late))} ms): "
            "latencies are the tester's as much as the system's; offer less, or run it on a machine of its own."
        )
    if any(measures.refused or measures.failed or measures.left for measures in whole):
        found.append(
            "Some requests were refused, failed or left. Latencies are those of the answered alone; goodput counts all but those "
            "who left."
        )
    errors: Counter[str] = Counter()
    for measures in whole:
        errors.update(measures.errors)
    found += [f"{count:,} × {error}" for error, count in errors.most_common(3)]
    return found


def ranges(result: Result) -> str:
    """What the ranges behind medians are."""
    if result.scenario.repeats == 1:
        return "One repeat, so no ranges."
    chance = 100 * (1 - 2.0 ** (1 - result.scenario.repeats))
    return (
        f"Medians of {result.scenario.repeats} repeats, and the range from the least to the greatest, which holds the true median "
        f"with a probability of {chance:.0f} %. Percentiles are nearest-rank, from when a request was due."
    )


def used(result: Result) -> dict[int, int]:
    """How many answers had how many candidates, over everything."""
    counts: Counter[int] = Counter()
    for repeat in result.repeats:
        counts.update(repeat.measures.candidates_used)
    return dict(sorted(counts.items()))
