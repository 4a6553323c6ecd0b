from __future__ import annotations

import math
from statistics import fmean

import pytest

from winnow.loadtests.benchmarks.early_stopping.savings import TOLERANCE, Curve, Estimate, Resample, estimate, saving
from winnow.models.statistics import median, resamples

CURVE = Curve([10, 20, 40], [0.5, 0.7, 0.9])


@pytest.mark.parametrize(("reward", "cost"), [(0.5, 10), (0.6, 200**0.5), (0.7, 20), (0.8, 800**0.5), (0.9, 40)])
def test_between_points_reward_goes_with_the_logarithm_of_the_cost(reward: float, cost: float) -> None:
    assert CURVE.cost(reward) == pytest.approx(cost)


def test_nothing_is_extrapolated_beyond_the_curve() -> None:
    assert CURVE.cost(0.49) == -math.inf
    assert CURVE.cost(0.91) == math.inf
    assert CURVE.saved(5, 0.49) == -math.inf
    assert CURVE.saved(10, 0.95) == 0.75  # what is certain: it takes more than 40


def test_rounding_does_not_take_a_setting_off_the_curve() -> None:
    assert CURVE.cost(0.5 - TOLERANCE / 2) == 10
    assert CURVE.cost(0.9 + TOLERANCE / 2) == 40


def test_a_curve_that_is_not_monotone_is_made_so_and_its_least_cost_counts() -> None:
    curve = Curve([10, 20, 18, 40], [0.5, 0.7, 0.65, 0.7])
    assert curve.costs == [10, 20, 20, 40]
    assert curve.rewards == [0.5, 0.7, 0.7, 0.7]
    assert curve.cost(0.7) == 20


def draws(count: int) -> list[Resample]:
    return list(resamples(count, seed=0))


def test_an_estimate_leaves_out_prompts_that_were_not_answered() -> None:
    drawn = [[0, 1, 2], [1, 1, 2], [1, 1, 1]]
    found = estimate([4.0, None, 8.0], fmean, drawn)
    assert (found.value, found.resampled, found.count) == (6.0, (6.0, 8.0, 6.0), 2)
    assert estimate([3.0, 1.0, 2.0], median, drawn).resampled == (2.0, 1.0, 1.0)


def test_the_interval_of_a_mean_has_the_size_that_theory_says() -> None:
    values = [float(number % 2) for number in range(400)]
    found = estimate(values, fmean, draws(400)).interval
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)


def test_an_end_beyond_the_curve_is_infinite() -> None:
    found = Estimate(0.5, (-math.inf,) * 5 + (0.5,) * 95, count=9).interval
    assert (found.low, found.high) == (-math.inf, 0.5)


def of(values: list[float]) -> Estimate:
    return estimate(values, fmean, draws(len(values)))


def test_half_the_cost_is_half_saved_without_doubt_when_prompts_are_paired() -> None:
    """The prompts differ far more than the settings do; an unpaired comparison could not tell."""
    size = [10.0 ** (number % 3) for number in range(60)]
    exact = [[k * each for each in size] for k in (1, 2, 4)]
    rewards = [of([reward + each / 1000 for each in size]) for reward in (0.5, 0.7, 0.9)]
    found = saving(of(exact[0]), rewards[1], [of(each) for each in exact], rewards)
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)


def test_a_setting_worse_than_the_curve_has_no_saving() -> None:
    exact = [of([1.0, 2.0]), of([2.0, 4.0])]
    assert saving(of([1.0, 1.0]), of([0.1, 0.1]), exact, [of([0.5, 0.5]), of([0.6, 0.6])]) is None
