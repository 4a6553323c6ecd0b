"""Accuracy of a reward model on comparisons: better answers against worse ones. Pure figures over outcomes.

An outcome is 1 if every better answer scores above every worse one, 0.5 for a tie, else 0. Orders never matter.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from winnow.models.statistics import Interval, mean_interval, percentile, wilson_interval

Key = TypeVar("Key", bound=Hashable)
BUCKETS = 4
"""Groups of equal size that a number is cut into."""
MOST_GROUPS = 50
"""Groups by name that are told apart."""


def outcome(better: Sequence[float], worse: Sequence[float]) -> float:
    """Return 1, 0.5 or 0; neither side is empty."""
    lead = min(better) - max(worse)
    return 0.5 if lead == 0 else float(lead > 0)


def chance(better: int, worse: int) -> float:
    """Return the probability that random scores put `better` answers above `worse` ones."""
    return 1 / math.comb(better + worse, better)


def accuracy(outcomes: Sequence[float]) -> Interval:
    """Return the mean outcome with Wilson's interval, a tie as half a success; NaN of none."""
    return wilson_interval(math.fsum(outcomes), len(outcomes))


def by_group(outcomes: Sequence[float], groups: Sequence[str | None]) -> dict[str, Interval]:
    """Return the accuracy of each group, by name; None is no group.

    Beyond `MOST_GROUPS` the smaller ones are one group: a column that says something else of each row is no grouping.
    """
    members: dict[str, list[float]] = {}
    for value, group in zip(outcomes, groups, strict=True):
        if group is not None:
            members.setdefault(group, []).append(value)
    small = sorted(members, key=lambda name: (-len(members[name]), name))[MOST_GROUPS:]
    others = [value for name in small for value in members.pop(name)]
    found = {name: accuracy(members[name]) for name in sorted(members)}
    return found | {f"{len(small):,} others": accuracy(others)} if small else found


def by_size(outcomes: Sequence[float], sizes: Sequence[float | None], unit: str = "") -> dict[str, Interval]:
    """Return the accuracy by quartiles of a number, smallest first; None is in no quartile, equal numbers in one."""
    known = sorted(size for size in sizes if size is not None)
    edges = sorted({percentile(known, 100 * place / BUCKETS) for place in range(1, BUCKETS + 1)}) if known else []
    members: dict[float, list[float]] = {edge: [] for edge in edges}
    for value, size in zip(outcomes, sizes, strict=True):
        if size is not None:
            members[next(edge for edge in edges if size <= edge)].append(value)
    names = [f"over {below:g} to {edge:g}{unit}" for below, edge in pairwise(edges)]
    names[:0] = [f"up to {edge:g}{unit}" for edge in edges[:1]]
    return {name: accuracy(members[edge]) for name, edge in zip(names, edges, strict=True)}


def paired_difference(first: Mapping[Key, float], second: Mapping[Key, float], seed: int = 0) -> Interval | None:
    """Return how much `first` exceeds `second` on the rows that both have, with a bootstrap interval; None of none.

    The keys name the rows; they decide the order in which rows are drawn.
    """
    shared = sorted(first.keys() & second.keys(), key=repr)
    return mean_interval([first[key] - second[key] for key in shared], seed) if shared else None
