"""Gwet's coefficients: his own example, the definition by brute force, and what must hold of any."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.agreement import Weight, agreement, identity, ordinal, quadratic

GWET = """1 1 . 1|2 2 3 2|3 3 3 3|3 3 3 3|2 2 2 2|1 2 3 4|4 4 4 4|1 1 2 1|2 2 2 2|. 5 5 5|. . 1 1|. . 3 ."""
"""Four raters and twelve subjects (Gwet 2014; cac.raw4raters of the R package irrCAC)."""
EXAMPLE = [[int(mark) - 1 for mark in line.split() if mark != "."] for line in GWET.split("|")]
RATINGS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=2, max_size=12)
WEIGHTS = pytest.mark.parametrize("weight", [identity, quadratic, ordinal])


def test_gwets_example() -> None:
    found = agreement(EXAMPLE, 5)
    assert found
    assert (round(found.coefficient, 5), round(found.standard_error, 5)) == (0.77544, 0.14295)
    assert (round(found.low, 3), found.high, found.subjects, found.rated) == (0.461, 1.0, 11, 12)


def by_definition(subjects: Sequence[Sequence[int]], categories: int, weight: Weight) -> float | None:
    """Over pairs of ratings, one by one."""
    several = [ratings for ratings in subjects if len(ratings) > 1]
    if not several:
        return None
    observed = statistics.fmean(
        statistics.fmean(weight(one, other, categories) for one, other in itertools.permutations(ratings, 2))
        for ratings in several
    )
    shares = [statistics.fmean(ratings.count(k) / len(ratings) for ratings in subjects) for k in range(categories)]
    total = sum(weight(one, other, categories) for one, other in itertools.product(range(categories), repeat=2))
    chance = total / (categories * (categories - 1)) * sum(share * (1 - share) for share in shares)
    return (observed - chance) / (1 - chance)


@WEIGHTS
@given(subjects=RATINGS)
def test_it_is_what_the_definition_says(weight: Weight, subjects: list[list[int]]) -> None:
    found, expected = agreement(subjects, 4, weight), by_definition(subjects, 4, weight)
    assert (found is None) == (expected is None)
    if found and expected is not None:
        assert found.coefficient == pytest.approx(expected)
        assert found.low <= found.coefficient + 1e-12
        assert found.high >= found.coefficient - 1e-12


@WEIGHTS
@given(subjects=RATINGS, seed=st.integers(0, 99))
def test_neither_order_matters(weight: Weight, subjects: list[list[int]], seed: int) -> None:
    shuffled = [Random(seed).sample(ratings, len(ratings)) for ratings in Random(seed).sample(subjects, len(subjects))]
    found, other = agreement(subjects, 4, weight), agreement(shuffled, 4, weight)
    assert (found is None) == (other is None)
    if found and other:
        assert other.coefficient == pytest.approx(found.coefficient)
        assert other.standard_error == pytest.approx(found.standard_error)


@WEIGHTS
def test_one_is_always_and_zero_about_as_by_chance(weight: Weight) -> None:
    rng = Random(0)
    same = [[number % 8] * 2 for number in range(80)]
    found = agreement(same, 8, weight)
    assert found
    assert (found.coefficient, found.low, found.high) == pytest.approx((1, 1, 1), abs=0.03)
    drawn = agreement([[rng.randrange(8), rng.randrange(8)] for _ in range(4000)], 8, weight)
    assert drawn
    assert abs(drawn.coefficient) < 0.05
    assert drawn.low < 0.02
    assert drawn.high > -0.02


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Raters agree on 80 % of two labels, of which one is rare: AC1 of the whole population, of samples of 60."""

    def sample(rng: Random, size: int) -> list[list[int]]:
        drawn = [int(rng.random() < 0.1) for _ in range(size)]
        return [[label if rng.random() < 0.9 else 1 - label for _ in range(2)] for label in drawn]

    truth = agreement(sample(Random(1), 100_000), 2)
    assert truth
    found = [agreement(sample(Random(seed), 60), 2) for seed in range(300)]
    held = sum(one.low <= truth.coefficient <= one.high for one in found if one)
    assert held / len(found) == pytest.approx(0.95, abs=0.04)


def test_without_two_ratings_there_is_none() -> None:
    assert agreement([], 2) is None
    assert agreement([[1], [0], []], 2) is None
    single = agreement([[0, 1]], 2)
    assert single
    assert math.isnan(single.standard_error)
    assert (single.low, single.high) == (-1, 1)
