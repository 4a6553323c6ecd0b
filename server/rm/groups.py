"""The groups of comparisons, and shares with their intervals, as the page and the terminal show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winnow.models.reporting.numbers import NOTHING, percent, percent_span
from winnow.models.statistics import Interval
from winnow.server.rm.evaluate import PairFigures


@dataclass(frozen=True, slots=True)
class Words:
    """The words for what labels say: of a bad answer, of a good one, and the sign of the calibrated score."""

    bad: str
    good: str
    symbol: str


SAFETY = Words("unsafe", "safe", "R_s")
HELPFULNESS = Words("unhelpful", "helpful", "R_h")


def words_of(kind: str) -> Words:
    """Return the words for a model of this kind, safety or helpfulness."""
    return SAFETY if kind == "safety" else HELPFULNESS


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
