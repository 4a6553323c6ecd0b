"""Agreement between annotators beyond chance: Gwet's AC1 and AC2, with their standard errors. Pure.

Gwet, "Handbook of Inter-Rater Reliability" (4th edition, 2014), and Gwet 2008, whose variance this is: subjects are a
sample of many, raters are given. Unlike kappa it does not fall where nearly every label is the same one.

    pa = mean over the subjects with two ratings or more of  sum_k r_ik (r*_ik - 1) / (r_i (r_i - 1))
    pe = T_w / (q (q - 1)) * sum_k pi_k (1 - pi_k)
    AC = (pa - pe) / (1 - pe)

r_ik counts a subject's ratings k out of q, r*_ik weighs them by their nearness to k, pi_k is the mean share of k over
all subjects, and T_w the sum of the weights. AC1 has identity weights, AC2 any others.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from winnow.models.statistics import LEVEL

Weight = Callable[[int, int, int], float]
"""The nearness of two categories out of q, from 0 to 1."""


def identity(one: int, other: int, categories: int) -> float:
    """Only equal ratings agree: AC1."""
    return float(one == other)


def quadratic(one: int, other: int, categories: int) -> float:
    """Ratings agree the less the further they are apart, by the square of the distance."""
    return 1 - ((one - other) / (categories - 1)) ** 2


def ordinal(one: int, other: int, categories: int) -> float:
    """Ratings agree by their ranks alone: 1 - C(d + 1, 2) / C(q, 2) at a distance of d."""
    return 1 - math.comb(abs(one - other) + 1, 2) / math.comb(categories, 2)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient from `subjects` that have two ratings or more, with its standard error.

    `rated` counts those with one, too. The error is NaN where that is one subject. `low` and `high` are the ends of the
    95 % interval.
    """

    coefficient: float
    standard_error: float
    subjects: int
    rated: int

    @property
    def low(self) -> float:
        """The lower end of the interval: at least -1, or the coefficient where that is lower, as it rarely is."""
        return min(self.coefficient, max(-1.0, self._end(-1)))

    @property
    def high(self) -> float:
        """The upper end of the interval, at most 1."""
        return min(1.0, self._end(1))

    def _end(self, sign: int) -> float:
        """Return an end by Student's distribution, as Gwet does."""
        if math.isnan(self.standard_error):
            return float(sign)
        return self.coefficient + sign * _student(self.rated - 1) * self.standard_error


def agreement(subjects: Iterable[Sequence[int]], categories: int, weight: Weight = identity) -> Agreement | None:
    """Return Gwet's coefficient of the ratings of each subject, from 0 to `categories` - 1.

    Subjects with one rating count for how common each category is, not for the agreement. None if no subject has two.
    """
    # Subjects with equal counts are alike, and there are few kinds of them.
    kinds = Counter(tuple(map(ratings.count, range(categories))) for ratings in subjects if ratings)
    weights = [[weight(one, other, categories) for other in range(categories)] for one in range(categories)]
    observed = {kind: _observed(kind, weights) for kind in kinds}
    total = kinds.total()
    several = sum(kinds[kind] for kind, value in observed.items() if value is not None)
    if not several:
        return None
    shares = [sum(n * kind[k] / sum(kind) for kind, n in kinds.items()) / total for k in range(categories)]
    scale = sum(map(sum, weights)) / (categories * (categories - 1))
    chance = scale * sum(share * (1 - share) for share in shares)
    mean = sum(kinds[kind] * value for kind, value in observed.items() if value is not None) / several
    coefficient = (mean - chance) / (1 - chance)
    # Each subject's own contribution; the spread of these is the coefficient's error.
    spread = 0.0
    for kind, number in kinds.items():
        own = observed[kind]
        expected = scale * sum(kind[k] / sum(kind) * (1 - shares[k]) for k in range(categories))
        part = 0.0 if own is None else total / several * (own - chance) / (1 - chance)
        spread += number * (part - 2 * (1 - coefficient) * (expected - chance) / (1 - chance) - coefficient) ** 2
    error = math.sqrt(spread / total / (total - 1)) if total > 1 else math.nan
    return Agreement(coefficient, error, several, total)


def _observed(row: Sequence[int], weights: Sequence[Sequence[float]]) -> float | None:
    """Return how far the ratings of a subject agree; None for less than two."""
    count = sum(row)
    if count < 2:
        return None
    near = [sum(weight * other for weight, other in zip(line, row, strict=True)) for line in weights]
    return sum(own * (around - 1) for own, around in zip(row, near, strict=True)) / (count * (count - 1))


def _student(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's distribution, to two digits or more.

    By Cornish and Fisher's expansion, but for the first two.
    """
    if freedom == 1:
        return 12.7062
    if freedom == 2:
        return 4.3027
    z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))
