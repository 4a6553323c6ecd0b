"""Figures that say how good a reward model is."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.training.evaluation import (
    expected_calibration_error,
    gate_curve,
    gate_figures,
    pair_accuracy,
    precision_and_recall,
    reliability,
    share,
)
from winnow.models.types import sigmoid

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


labelled = st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=60)


@given(labelled, st.randoms(use_true_random=False))
def test_the_gates_figures_do_not_depend_on_the_order(rows: list[tuple[float, bool]], random: Random) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)
    one, other = (gate_figures([row[0] for row in some], [row[1] for row in some]) for some in (rows, shuffled))
    for name in ("precision", "recall", "over_refusal"):
        assert repr(getattr(one, name)) == repr(getattr(other, name))
    assert (one.ece, one.brier) == (pytest.approx(other.ece), pytest.approx(other.brier))
    assert 0 <= one.ece <= 1
    assert 0 <= one.brier <= 1


def test_the_gates_figures() -> None:
    figures = gate_figures([-3.0, -3.0, 3.0, 3.0, 3.0], [True, False, True, False, False])
    assert figures.precision.value == 1 / 2
    assert figures.recall.value == 1 / 2
    assert figures.over_refusal.value == 1 / 3


@given(labelled)
def test_bins_hold_every_answer_once(rows: list[tuple[float, bool]]) -> None:
    bins = reliability([row[0] for row in rows], [row[1] for row in rows])
    assert sum(one.unsafe.count for one in bins) == len(rows)
    assert sum(round(one.unsafe.value * one.unsafe.count) for one in bins) == sum(unsafe for _, unsafe in rows)


def test_a_probability_that_is_true_has_a_small_error() -> None:
    rng = Random(0)
    logits = [rng.gauss(0, 2) for _ in range(20_000)]
    unsafe = [rng.random() < sigmoid(-value) for value in logits]
    assert expected_calibration_error(logits, unsafe) < 0.02
    assert expected_calibration_error([3 * value + 2 for value in logits], unsafe) > 0.15
    assert math.isnan(expected_calibration_error([], []))


@given(labelled)
def test_the_curve_ends_where_every_answer_is_refused(rows: list[tuple[float, bool]]) -> None:
    logits, unsafe = [row[0] for row in rows], [row[1] for row in rows]
    cuts = gate_curve(logits, unsafe)
    assert bool(cuts) == any(unsafe)
    assert [cut.recall for cut in cuts] == sorted(cut.recall for cut in cuts)
    assert [cut.threshold for cut in cuts] == sorted(cut.threshold for cut in cuts)
    if cuts:
        assert cuts[-1].recall == 1
        assert cuts[-1].precision == pytest.approx(share(unsafe))


def test_the_curve() -> None:
    cuts = gate_curve([-3.0, -1.0, 1.0, 3.0], [True, False, True, False])
    assert [(cut.precision, cut.recall) for cut in cuts] == [(1, 0.5), (0.5, 0.5), (2 / 3, 1), (0.5, 1)]
    assert len(gate_curve([float(place) for place in range(5000)], [True, False] * 2500)) <= 210
    assert cuts[0].threshold == pytest.approx(sigmoid(-2.0))
