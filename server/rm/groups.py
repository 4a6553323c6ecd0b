"""The groups of comparisons, and shares with their intervals, as the page and the terminal show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from winnow.models.reporting.numbers import NOTHING, percent, percent_span
from winnow.models.statistics import Interval
from winnow.server.rm.evaluate import PairFigures

GROUPS = (
    ("by_rating", "rating"),
    ("by_margin", "margin"),
    ("by_category", "category"),
    ("by_length", "mean length of the answers"),
    ("by_longer", "which is longer"),
)
"""The groupings of comparisons, with their headings."""


def share(interval: Interval | None) -> str:
    """Format a share with its interval: `81.2 % (79.0 % to 83.3 %)`; a dash where nothing was measured."""
    if interval is None or math.isnan(interval.value):
        return NOTHING
    return f"{percent(interval.value)} ({percent_span(interval)})"


def groups(models: Sequence[PairFigures | None]) -> list[tuple[str, list[tuple[str, list[Interval | None]]]]]:
    """Return each grouping with its rows: a group's name, and its accuracy for each model."""
    known = [model for model in models if model]
    tables = []
    for name, heading in GROUPS:
        members: list[Mapping[str, Interval]] = [getattr(model, name) for model in known]
        names = list(dict.fromkeys(group for member in members for group in member))
        if names:
            tables.append((heading, [(group, [member.get(group) for member in members]) for group in names]))
    return tables
