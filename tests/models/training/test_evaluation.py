"""Figures that say how good a reward model is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.training.evaluation import pair_accuracy, precision_and_recall, share

flags = st.lists(st.tuples(st.booleans(), st.booleans()))


def test_a_share() -> None:
    assert share(value > 1 for value in (1, 2, 3, 4)) == 0.75
    assert math.isnan(share([]))


def test_a_tied_pair_is_not_ranked_correctly() -> None:
    assert pair_accuracy([1.0, 2.0, 3.0], [0.0, 2.0, 4.0]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError):
        pair_accuracy([1.0], [])


def test_precision_and_recall() -> None:
    assert precision_and_recall([True, True, False, False], [True, False, True, True]) == (1 / 2, 1 / 3)
    precision, recall = precision_and_recall([False, False], [True, False])
    assert math.isnan(precision)
    assert recall == 0.0


@given(flags)
def test_precision_and_recall_swap_with_the_roles(labels: list[tuple[bool, bool]]) -> None:
    predicted, actual = [p for p, _ in labels], [a for _, a in labels]
    precision, recall = precision_and_recall(predicted, actual)
    swapped = precision_and_recall(actual, predicted)
    assert (repr(precision), repr(recall)) == (repr(swapped[1]), repr(swapped[0]))
    assert precision_and_recall(actual, actual) == (1.0, 1.0) or not any(actual)
