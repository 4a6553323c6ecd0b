"""Statistics against brute force."""

from __future__ import annotations

import itertools
import math
import statistics
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.statistics import (
    Moments,
    best_weights,
    bootstrap_interval,
    bootstrap_means,
    clustered_wilson_interval,
    kl_bound,
    mean_interval,
    median_weights,
    midranks,
    rank_correlation,
    resamples,
    sizes_up_to,
    wilson_interval,
)


@pytest.mark.parametrize("total", range(1, 9))
def test_best_and_median_are_the_mean_over_all_subsets(total: int) -> None:
    rng = Random(total)
    values = [rng.gauss(0, 1) for _ in range(total)]
    values[-1] = values[0]  # a tie
    best_first, ascending = np.array(sorted(values, reverse=True)), np.array(sorted(values))
    for size in range(1, total + 1):
        subsets = list(itertools.combinations(values, size))
        best = statistics.fmean(max(subset) for subset in subsets)
        median = statistics.fmean(statistics.median(subset) for subset in subsets)
        assert best_first @ best_weights(total, size) == pytest.approx(best)
        assert ascending @ median_weights(total, size) == pytest.approx(median)


def test_the_best_is_the_rankings_choice_not_the_largest_value() -> None:
    """A run that ranks safe answers first may rank a lower R_c higher."""
    ranked = [0.1, 0.9, 0.5]
    subsets = itertools.combinations(range(3), 2)
    best = statistics.fmean(ranked[min(subset)] for subset in subsets)
    assert np.array(ranked) @ best_weights(3, 2) == pytest.approx(best)


@pytest.mark.parametrize("total", [1, 2, 7, 16, 100, 1000])
def test_weights_are_distributions(total: int) -> None:
    for size in sizes_up_to(total):
        for weights in (best_weights(total, size), median_weights(total, size)):
            assert weights.shape == (total,)
            assert weights.min() >= 0
            assert weights.sum() == pytest.approx(1)
        assert median_weights(total, size) == pytest.approx(median_weights(total, size)[::-1])
    assert best_weights(total, 1) == pytest.approx(np.full(total, 1 / total))
    assert median_weights(total, 1) == pytest.approx(np.full(total, 1 / total))


def test_the_maximum_never_falls_with_n() -> None:
    rng = np.random.default_rng(0)
    for total in (3, 16, 50):
        best_first = np.sort(rng.random((20, total)), axis=1)[:, ::-1]
        curve = np.array([best_first @ best_weights(total, size) for size in range(1, total + 1)])
        assert (np.diff(curve, axis=0) >= -1e-12).all()
        assert curve[-1] == pytest.approx(best_first[:, 0])


def test_sizes() -> None:
    assert sizes_up_to(0) == ()
    assert sizes_up_to(1) == (1,)
    assert sizes_up_to(16) == (1, 2, 4, 8, 16)
    assert sizes_up_to(12) == (1, 2, 4, 8, 12)


def test_kl_bound() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(math.log(2) - 0.5)
    assert kl_bound(16) == pytest.approx(1.8351, abs=1e-4)


def test_intervals_hold_the_mean_and_are_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(3, 2, size=(2000, 3))
    for column, interval in enumerate(bootstrap_means(table, seed=0)):
        assert interval is not None
        assert interval.value == pytest.approx(table[:, column].mean())
        assert interval.low < interval.value < interval.high
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2 / math.sqrt(2000), rel=0.15)
        assert interval.count == 2000


def test_prompts_that_do_not_count_are_left_out() -> None:
    table = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [6.0, np.nan, np.nan]])
    whole, single, nothing = bootstrap_means(table, seed=0)
    assert whole is not None
    assert (whole.value, whole.count) == (3, 3)
    assert single is not None
    assert (single.value, single.low, single.high, single.count) == (5, 5, 5, 1)
    assert nothing is None


def test_equal_seeds_give_equal_intervals_and_all_columns_the_same_resamples() -> None:
    table = np.random.default_rng(2).random((50, 1)) @ np.ones((1, 2))
    first, second = bootstrap_means(table, seed=3)
    assert first == second
    assert bootstrap_means(table, seed=3) == [first, second]
    assert bootstrap_means(table, seed=4) != [first, second]


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (5, 0)])
def test_tiny_tables(shape: tuple[int, int]) -> None:
    found = bootstrap_means(np.full(shape, 0.3), seed=0)
    assert len(found) == shape[1]
    assert all(item is None or item.low == item.value == item.high == pytest.approx(0.3) for item in found)


def test_midranks_share_ties() -> None:
    values = np.array([[3, 1, 3, 2], [5, 5, 5, 5], [1, 2, 3, 4]])
    assert midranks(values).tolist() == [[2.5, 0, 2.5, 1], [1.5] * 4, [0, 1, 2, 3]]
    rng = np.random.default_rng(0)
    random = rng.integers(0, 5, size=(30, 9))
    naive = [[sum(o < v for o in row) + (sum(o == v for o in row) - 1) / 2 for v in row] for row in random]
    assert midranks(random) == pytest.approx(np.array(naive))


def test_rank_correlation() -> None:
    up = np.array([[0.0, 1, 2, 3]])
    assert rank_correlation(up, up) == pytest.approx([1])
    assert rank_correlation(up, up[:, ::-1]) == pytest.approx([-1])
    assert rank_correlation(up, np.array([[1.0, 0, 3, 2]])) == pytest.approx([0.6])
    assert np.isnan(rank_correlation(up, np.ones((1, 4)))).all()


def test_bootstraps_agree() -> None:
    """The interval of a mean is the same by resampled positions as by counts, up to the noise of the draws."""
    values = np.random.default_rng(5).normal(1, 3, size=400).tolist()
    drawn = (statistics.fmean(values[place] for place in places) for places in resamples(len(values), seed=0))
    slow, fast = bootstrap_interval(statistics.fmean(values), drawn, len(values)), mean_interval(values, seed=0)
    assert (slow.value, slow.count) == (pytest.approx(fast.value, abs=1e-6), fast.count)
    assert (slow.low, slow.high) == (pytest.approx(fast.low, abs=0.1), pytest.approx(fast.high, abs=0.1))
    assert not slow.excludes(slow.value)
    assert slow.excludes(slow.high + 1)


def test_moments_do_not_cancel() -> None:
    """The sum of squares about a far mean loses all digits; the deviation here is 1e-4 at 1e6."""
    moments = Moments()
    for value in (1e6, 1e6 + 1e-4, 1e6 + 2e-4):
        moments.add(value)
    assert (moments.count, moments.lowest, moments.highest) == (3, 1e6, 1e6 + 2e-4)
    assert moments.deviation == pytest.approx(1e-4 * math.sqrt(2 / 3), rel=1e-3)
    assert moments.whiten(moments.mean) == 0
    assert Moments().deviation == Moments().whiten(5.0) == 0


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_a_wilson_interval_holds_exactly_the_shares_that_a_test_of_them_accepts(trial: tuple[int, int]) -> None:
    """The score test of a share p: the difference from it is 1.96 standard errors at p itself."""
    successes, count = trial
    found = wilson_interval(successes, count)
    assert (found.value, found.count) == (successes / count, count)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        assert math.isclose(abs(found.value - end), 1.959964 * math.sqrt(end * (1 - end) / count), abs_tol=1e-6)
    mirrored = wilson_interval(count - successes, count)
    assert math.isclose(mirrored.low, 1 - found.high, abs_tol=1e-12)


def test_a_wilson_interval_of_nothing_is_not_a_number() -> None:
    assert math.isnan(wilson_interval(0, 0).value)
    assert math.isnan(clustered_wilson_interval([]).value)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=50), st.integers(1, 5))
def test_trials_that_repeat_within_their_cluster_narrow_no_interval(trials: list[float], repeats: int) -> None:
    found = clustered_wilson_interval((place, trial) for place, trial in enumerate(trials) for _ in range(repeats))
    single = wilson_interval(sum(trials), len(trials))
    assert found.count == repeats * len(trials)
    assert (found.value, found.low, found.high) == pytest.approx((single.value, single.low, single.high))


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_an_interval_of_clusters_holds_the_true_share_as_often_as_it_says(alike: float) -> None:
    """Each cluster has a share of its own, so far from the others as its trials are alike."""
    rng = np.random.default_rng(0)
    held = held_by_plain = 0
    for _ in range(500):
        sizes = rng.integers(1, 8, size=60)
        common = rng.random(60) < 0.7
        trials = [
            (cluster, float(common[cluster] if rng.random() < alike**0.5 else rng.random() < 0.7))
            for cluster, size in enumerate(sizes)
            for _ in range(size)
        ]
        found = clustered_wilson_interval(trials)
        plain = wilson_interval(sum(trial for _, trial in trials), len(trials))
        held += not found.excludes(0.7)
        held_by_plain += not plain.excludes(0.7)
    assert 0.93 <= held / 500 <= 0.98
    assert held_by_plain / 500 <= {0.0: 1.0, 0.5: 0.85, 1.0: 0.7}[alike]
