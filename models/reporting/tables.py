"""Tables for terminals of any width: one that is too wide is cut into several, each with the first column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

HEAD_SHARE = 3
"""The first column takes at most one part in HEAD_SHARE of the width, or MIN_HEAD characters; it folds into lines."""
MIN_HEAD = 12


def print_table(console: Console, table: Table) -> None:
    """Print a table; where the console is too narrow for it, print its columns below each other instead.

    rich would take the width from all columns alike, until none can be read. The first column is repeated.
    """
    for part in stacked(table, console):
        console.print(part)


def stacked(table: Table, console: Console) -> list[Table]:
    """Return the tables to print, each with the first column and as many of the others as fit, at least one."""
    if _width(table, console) <= console.width:
        return [table]
    head, *columns = table.columns
    limit = max(MIN_HEAD, console.width // HEAD_SHARE)
    head = replace(head, overflow="fold", max_width=limit, no_wrap=False)
    groups: list[list[Column]] = [[]]
    for column in columns:
        whole = replace(column, no_wrap=True)
        if groups[-1] and _width(_part(table, [head, *groups[-1], whole]), console) > console.width:
            groups.append([])
        groups[-1].append(whole)
    parts = [_part(table, [head, *group]) for group in groups]
    parts[0].title, parts[-1].caption = table.title, table.caption
    return parts


def _part(table: Table, columns: Sequence[Column]) -> Table:
    """Return a table of the same look with these columns, without title and caption."""
    part = Table(
        *(column.copy() for column in columns),
        box=table.box, padding=table.padding, title_justify=table.title_justify, caption_justify=table.caption_justify,
    )  # fmt: skip
    for row, cells in zip(table.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        part.add_row(*cells, style=row.style)
    return part


def _width(table: Table, console: Console) -> int:
    """Return the width that the table takes if nothing is wrapped."""
    options = console.options.update(width=10_000)
    return Measurement.get(console, options, table).maximum
