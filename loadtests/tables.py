"""A result as tables for the terminal, of any width."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from winnow.loadtests.estimates import QUANTITIES
from winnow.loadtests.formatting import UNKNOWN, explain_ranges, format_number, format_range, notes
from winnow.loadtests.results import Comparison, Result
from winnow.models.reporting.tables import print_table
from winnow.models.statistics import Interval

COLUMNS = {
    "answered_rate": "answers\n/s", "whole_p50_ms": "p50\nms", "whole_p90_ms": "p90\nms", "whole_p99_ms": "p99\nms",
    "refused_percent": "refused\n%", "failed_percent": "failed\n%", "left_percent": "left\n%",
    "good_percent": "in SLO\n%", "candidates_rate": "cands.\n/s", "first_byte_p50_ms": "1st byte\np50 ms",
    "score_tail_p50_ms": "tail\np50 ms", "wasted_percent": "wasted\ntokens %",
}  # fmt: skip
"""Quantities in the table and their headings; a column of zeros is left out. The files have all quantities.

The first ones stand together in a terminal that is too narrow for all.
"""
COMPARED = ("answered_rate", "candidates_rate", "whole_p50_ms", "whole_p99_ms", "first_byte_p50_ms", "goodput")


def show(result: Result, console: Console) -> None:
    """Print a table of the measures, the comparisons of targets, and the notes."""
    print_table(console, _table(result))
    for point in result.points:
        for comparison in result.comparisons(point):
            console.print(Text(f"{point.label}: {result.names[0]} ÷ {comparison.target}", style="bold"))
            for line in compare(comparison):
                console.print(Text(f"  {line}"))
    console.print(Text(explain_ranges(result), style="dim"))
    for note in notes(result):
        console.print(Text(note, style="yellow"))


def _table(result: Result) -> Table:
    found = {(point, name): result.estimates(point, name) for point in result.points for name in result.names}
    shown = [key for key in COLUMNS if any(key in each and each[key].high for each in found.values())]
    table = Table(title=f"{result.scenario.name}: {len(result.repeats)} repeats", title_justify="left")
    table.add_column("")
    for key in shown:
        table.add_column(COLUMNS[key], justify="right")
    for (point, name), values in found.items():
        head = Text(point.label)
        if len(result.names) > 1:
            head.append(f"\n{name}", style="dim")
        table.add_row(head, *(_cell(values.get(key)) for key in shown))
    return table


def _cell(interval: Interval | None) -> Group | str:
    if interval is None:
        return UNKNOWN
    median, within = format_number(interval.value), format_range(interval).replace(" to ", "–")
    return Group(median, Text(within, style="dim")) if within else median


def compare(comparison: Comparison) -> Iterator[str]:
    """Yield a line for each compared quantity, and one for equal texts."""
    titles = {quantity.name: quantity.title for quantity in QUANTITIES}
    for key in COMPARED:
        if ratio := comparison.ratios.get(key):
            within = f" ({format_range(ratio)})" if format_range(ratio) else ""
            yield f"{titles[key]}: {ratio.value:.2f} ×{within}"
    same = comparison.agreement
    if same.share is not None:
        yield f"same text: {same.same:,} of {same.both:,} that both answered ({100 * same.share:.1f} %)"
