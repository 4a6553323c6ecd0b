"""The result as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from winnow.loadtests.estimates import QUANTITIES, Estimate
from winnow.loadtests.formatting import figure, notes, ranges, span
from winnow.loadtests.results import Comparison, Result

COLUMNS = {
    "answered_rate": "answers\n/s", "candidates_rate": "cands.\n/s", "whole_p50_ms": "p50\nms", "whole_p90_ms": "p90\nms",
    "whole_p99_ms": "p99\nms", "first_byte_p50_ms": "1st byte\np50 ms", "score_tail_p50_ms": "tail\np50 ms",
    "good_percent": "in SLO\n%", "refused_percent": "refused\n%", "failed_percent": "failed\n%", "left_percent": "left\n%",
    "wasted_percent": "wasted\ntokens %",
}  # fmt: skip
"""Quantities in the table, and their heads; where all is 0 or unknown, a column is left out. The files have the others too."""
COMPARED = ("answered_rate", "candidates_rate", "whole_p50_ms", "whole_p99_ms", "first_byte_p50_ms", "goodput")


def show(result: Result, console: Console) -> None:
    """Print what was measured: a table, how systems compare, and what to beware of."""
    console.print(_table(result))
    for point in result.points:
        for comparison in result.comparisons(point):
            console.print(Text(f"{point.label}: {result.names[0]} ÷ {comparison.system}", style="bold"))
            for line in compared(comparison):
                console.print(Text(f"  {line}"))
    console.print(Text(ranges(result), style="dim"))
    for note in notes(result):
        console.print(Text(note, style="yellow"))


def _table(result: Result) -> Table:
    found = {(point, name): result.estimates(point, name) for point in result.points for name in result.names}
    shown = [key for key in COLUMNS if any(key in each and each[key].high for each in found.values())]
    table = Table(title=f"{result.scenario.name}: {len(result.repeats)} repeats", title_justify="left")
    table.add_column("", overflow="fold")
    for key in shown:
        table.add_column(COLUMNS[key], justify="right", no_wrap=True)
    for (point, name), values in found.items():
        head = Text(point.label)
        if len(result.names) > 1:
            head.append(f"\n{name}", style="dim")
        table.add_row(head, *(_cell(values, key) for key in shown))
    return table


def _cell(values: Mapping[str, Estimate], key: str) -> Group | str:
    if key not in values:
        return "–"
    return Group(figure(values[key].median), Text(span(values[key]).replace(" to ", "–"), style="dim"))


def compared(comparison: Comparison) -> Iterator[str]:
    """How two systems compare, in lines of words."""
    titles = {quantity.name: quantity.title for quantity in QUANTITIES}
    for key in COMPARED:
        if ratio := comparison.ratios.get(key):
            within = f" ({span(ratio)})" if span(ratio) else ""
            yield f"{titles[key]}: {ratio.median:.2f} ×{within}"
    same = comparison.agreement
    if same.share is not None:
        yield f"same text: {same.same:,} of {same.both:,} that both answered ({100 * same.share:.1f} %)"
