"""Savings of early stopping against exact best of K, with their uncertainty. Pure.

The reference is the curve of exact best of K: mean R_c against cost. A setting that reached some mean R_c is
compared with the cost of exact best of K at the same mean R_c. The bootstrap resamples prompts, the same ones
for every setting, so that a hard or long prompt weighs on both sides of a comparison.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from winnow.models.statistics import Interval, bootstrap_interval

TOLERANCE = 0.0005
"""A mean R_c may miss the ends of the curve by this much: scores repeat from run to run up to rounding."""

Resample = NDArray[np.int64] | Sequence[int]
"""Positions of prompts, drawn with replacement."""
Statistic = Callable[[Sequence[float]], float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic of `count` prompts, and of each resample of prompts."""

    value: float
    resampled: tuple[float, ...]
    count: int

    @property
    def interval(self) -> Interval:
        """The statistic with its 95 % interval."""
        return bootstrap_interval(self.value, self.resampled, self.count)


def estimate(values: Sequence[float | None], statistic: Statistic, resamples: Sequence[Resample]) -> Estimate:
    """Return the statistic of one value per prompt; None, for a prompt that was not answered, is left out."""
    array = np.array([math.nan if value is None else value for value in values])
    known: list[float] = array[~np.isnan(array)].tolist()
    drawn = (array[np.asarray(positions)] for positions in resamples)
    kept: Iterable[list[float]] = (each[~np.isnan(each)].tolist() for each in drawn)
    return Estimate(statistic(known), tuple(statistic(each or known) for each in kept), len(known))


class Curve:
    """Cost against mean R_c of exact best of K, made monotone: a larger K never reaches less and never costs less."""

    def __init__(self, costs: Iterable[float], rewards: Iterable[float]) -> None:
        """Take the points in ascending order of K."""
        self.costs = list(itertools.accumulate(costs, max))
        self.rewards = list(itertools.accumulate(rewards, max))

    def cost(self, reward: float) -> float:
        """Return the least cost, above 0, that reaches `reward`; ±inf below and above all points.

        Between two points reward is linear in the logarithm of the cost: each doubling of K adds less than the
        one before, and straight lines over the cost itself would lie well below the true curve.
        """
        if reward <= self.rewards[0]:
            return self.costs[0] if reward >= self.rewards[0] - TOLERANCE else -math.inf
        for place in range(1, len(self.rewards)):
            low, high = self.rewards[place - 1], self.rewards[place]
            if reward <= high:
                share = (reward - low) / (high - low)
                return float(self.costs[place - 1] ** (1 - share) * self.costs[place] ** share)
        return self.costs[-1] if reward <= self.rewards[-1] + TOLERANCE else math.inf

    def saved(self, cost: float, reward: float) -> float:
        """Return the share of the curve's cost that was saved.

        -inf below the curve. Above it the certain part: the saving against the curve's end.
        """
        needed = self.cost(reward)
        return -math.inf if needed == -math.inf else 1 - cost / min(needed, self.costs[-1])


def saving(
    cost: Estimate, reward: Estimate, exact_costs: Sequence[Estimate], exact_rewards: Sequence[Estimate]
) -> Interval | None:
    """Return the share of cost that a setting saves at equal mean R_c.

    None if its mean R_c is beyond the curve of exact best of K. An end of the interval is infinite if it is.
    """
    curve = Curve((each.value for each in exact_costs), (each.value for each in exact_rewards))
    if not math.isfinite(curve.cost(reward.value)):
        return None
    resampled = (
        Curve((each.resampled[d] for each in exact_costs), (each.resampled[d] for each in exact_rewards)).saved(
            cost.resampled[d], reward.resampled[d]
        )
        for d in range(len(cost.resampled))
    )
    return bootstrap_interval(curve.saved(cost.value, reward.value), resampled, cost.count)
