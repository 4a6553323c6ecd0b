"""What a dial saves against exact best of K, and how sure that is. Pure.

The reference is the curve of exact best of K: mean R_c against what it costs. A dial that reached a mean R_c is compared with what exact
best of K would have cost for the same. Prompts are drawn anew with replacement, the same ones for every setting, so that what makes a
prompt hard or long weighs on both sides of a comparison.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from winnow.loadtests.measures import percentile

DRAWS = 1000
TOLERANCE = 0.0005
"""A mean R_c that ends of the curve may be missed by: scores are the same from run to run up to rounding."""

Draw = Sequence[int]
Statistic = Callable[[Sequence[float]], float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval. An end is None where it is beyond what was measured."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, drawn: Iterable[float]) -> Interval:
        """That of the values that were drawn; infinite ones are beyond."""
        ordered = sorted(drawn)
        low, high = percentile(ordered, 2.5), percentile(ordered, 97.5)
        return cls(value, low if math.isfinite(low) else None, high if math.isfinite(high) else None)

    @property
    def is_above_zero(self) -> bool:
        """Whether all of it is."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True, slots=True)
class Estimated:
    """A statistic of all prompts, and of each draw of prompts."""

    value: float
    drawn: tuple[float, ...]

    @property
    def interval(self) -> Interval:
        """As a value with its interval."""
        return Interval.of(self.value, self.drawn)


def draws(count: int, seed: int = 0, number: int = DRAWS) -> list[Draw]:
    """So many draws of `count` prompts, with replacement."""
    rng = random.Random(f"draws-{seed}")
    return [rng.choices(range(count), k=count) for _ in range(number)]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def median(values: Sequence[float]) -> float:
    """The nearest-rank median, a value that occurred."""
    return percentile(sorted(values), 50)


def estimated(values: Sequence[float | None], statistic: Statistic, drawn: Sequence[Draw]) -> Estimated:
    """The statistic of one value a prompt; None, a prompt that was not answered, is left out."""
    known = [value for value in values if value is not None]
    of_draws = ([value for place in draw if (value := values[place]) is not None] for draw in drawn)
    return Estimated(statistic(known), tuple(statistic(each or known) for each in of_draws))


class Curve:
    """Cost against mean R_c of exact best of K, made monotone: more never reaches less, and never costs less."""

    def __init__(self, costs: Iterable[float], rewards: Iterable[float]) -> None:
        """Points with K ascending."""
        self.costs = list(itertools.accumulate(costs, max))
        self.rewards = list(itertools.accumulate(rewards, max))

    def cost(self, reward: float) -> float:
        """The least cost, above 0, that reaches `reward`; ±inf below and above all points.

        Between two points reward goes with the logarithm of the cost: each doubling of K adds less than the one before, and straight
        lines over the cost itself would lie well below the true curve.
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
        """The share of the curve's cost that was saved. −inf below the curve; above it what is certain: the saving against its end."""
        needed = self.cost(reward)
        return -math.inf if needed == -math.inf else 1 - cost / min(needed, self.costs[-1])


def saving(
    cost: Estimated, reward: Estimated, exact_costs: Sequence[Estimated], exact_rewards: Sequence[Estimated]
) -> Interval | None:
    """The share that a dial saves at equal mean R_c; None if its mean R_c is beyond the curve of exact best of K."""
    curve = Curve((each.value for each in exact_costs), (each.value for each in exact_rewards))
    if not math.isfinite(curve.cost(reward.value)):
        return None
    drawn = [
        Curve((each.drawn[d] for each in exact_costs), (each.drawn[d] for each in exact_rewards)).saved(
            cost.drawn[d], reward.drawn[d]
        )
        for d in range(len(cost.drawn))
    ]
    return Interval.of(curve.saved(cost.value, reward.value), drawn)
