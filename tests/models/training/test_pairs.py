"""Accuracy on comparisons."""

from __future__ import annotations

from collections.abc import Hashable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.training.pairs import MOST_GROUPS, accuracy, by_group, by_size, chance, outcome, paired_difference

outcomes = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("better", "worse", "value"),
    [([2.0], [1.0], 1), ([1.0], [2.0], 0), ([1.0], [1.0], 0.5), ([3.0, 1.0], [2.0], 0), ([3.0, 2.5], [2.0, 1.0], 1)],
)
def test_an_outcome(better: list[float], worse: list[float], value: float) -> None:
    assert outcome(better, worse) == value


@given(outcomes)
def test_ties_count_half_and_the_interval_holds_the_share(values: list[float]) -> None:
    found = accuracy(values)
    assert found.value == pytest.approx(sum(values) / len(values))
    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = accuracy([1 - value for value in values])
    assert mirrored.low == pytest.approx(1 - found.high)


@given(outcomes, st.randoms(use_true_random=False))
def test_groups_hold_every_row_once_in_any_order(values: list[float], random: Random) -> None:
    rows = [(value, random.choice([None, "a", "b"]), random.choice([None, 1.0, 2.0, 5.5])) for value in values]
    shuffled = random.sample(rows, len(rows))
    for figure in (lambda some: by_group([row[0] for row in some], [row[1] for row in some]),
                   lambda some: by_size([row[0] for row in some], [row[2] for row in some])):  # fmt: skip
        assert figure(rows) == figure(shuffled)
    assert sum(one.count for one in by_group(values, [row[1] for row in rows]).values()) == sum(
        row[1] is not None for row in rows
    )
    assert sum(one.count for one in by_size(values, [row[2] for row in rows]).values()) == sum(
        row[2] is not None for row in rows
    )


def test_a_column_that_differs_in_each_row_makes_no_endless_table() -> None:
    found = by_group([1.0] * 202, ["a", "a", *(f"id {place:03}" for place in range(200))])
    assert len(found) == MOST_GROUPS + 1
    assert found["a"].count == 2
    assert found["151 others"].count == 151
    assert sum(one.count for one in found.values()) == 202


def test_quartiles_are_named_by_their_ends() -> None:
    found = by_size([1.0] * 8, list(range(8)), " words")
    assert list(found) == ["up to 1 words", "over 1 to 3 words", "over 3 to 5 words", "over 5 to 7 words"]
    assert {one.count for one in found.values()} == {2}
    assert by_size([1.0], [None]) == {}


def test_chance() -> None:
    assert chance(1, 1) == 1 / 2
    assert chance(1, 3) == 1 / 4


def test_a_difference_is_of_the_rows_that_both_have_in_any_order() -> None:
    rng = Random(0)
    first: dict[Hashable, float] = {f"r{place}": float(rng.random() < 0.8) for place in range(400)}
    second: dict[Hashable, float] = {key: float(rng.random() < 0.6) for key in first if key != "r7"}
    found = paired_difference(first, second)
    assert found
    assert found.count == 399
    assert found.excludes(0)
    assert found.low < 0.2 < found.high
    assert paired_difference(dict(reversed(first.items())), second) == found
    assert paired_difference(first, {}) is None
    same = paired_difference(first, first)
    assert same
    assert (same.low, same.high) == (0, 0)
