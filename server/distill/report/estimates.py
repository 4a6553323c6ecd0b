"""The statistics of a report: pure functions over numpy arrays, no journal and no drawing.

Covers what the best, the median and the mean of N out of K candidates are worth, exactly and not by drawing; bootstrap intervals
over prompts; rank correlation within prompts; the KL bound of best-of-N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]

RESAMPLES = 1000
LEVEL = 0.95
_BLOCK = 2_000_000
"""How many draws of a bootstrap are held at once."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over so many `prompts` with its 95 % percentile-bootstrap interval; `low` ≤ `mean` ≤ `high`."""

    mean: float
    low: float
    high: float
    prompts: int

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return not self.low <= value <= self.high


def sizes_up_to(total: int) -> tuple[int, ...]:
    """The N that are shown for K = `total`: 1, 2, 4, … and K itself; none for 0."""
    powers = [1 << exponent for exponent in range(total.bit_length())]
    return tuple(sorted({*powers, total})) if total else ()


@lru_cache(maxsize=8192)
def best_weights(total: int, size: int) -> FloatArray:
    """How likely each rank is the best of a random subset: [total], best rank first, sums to 1.

    All C(total, size) subsets count alike: C(total - 1 - rank, size - 1) of them have that rank as their best (Nakano et al. 2021,
    the unbiased estimate of best-of-n). Needs 1 ≤ size ≤ total.
    """
    subsets = math.comb(total, size)
    return _frozen([math.comb(total - 1 - rank, size - 1) / subsets for rank in range(total)])


@lru_cache(maxsize=8192)
def median_weights(total: int, size: int) -> FloatArray:
    """How much each order statistic counts in the expected median of a random subset: [total], lowest first, sums to 1.

    The value at sorted position i is the j-th lowest of C(i, j) · C(total - 1 - i, size - 1 - j) of the C(total, size) subsets: it
    needs j companions from below and the others from above. An even size takes half of each of its two middle places.
    Needs 1 ≤ size ≤ total.
    """
    middle = ((size - 1) // 2, size // 2)
    subsets = 2 * math.comb(total, size)
    return _frozen(
        [
            sum(math.comb(place, below) * math.comb(total - 1 - place, size - 1 - below) for below in middle) / subsets
            for place in range(total)
        ]
    )


def _frozen(values: Sequence[float]) -> FloatArray:
    array = np.array(values)
    array.setflags(write=False)
    return array


def kl_bound(size: int) -> float:
    """log N - (N - 1) / N, in nats: best-of-N is no further than this from the policy that it samples."""
    return math.log(size) - (size - 1) / size


def bootstrap(table: FloatArray, seed: int, resamples: int = RESAMPLES) -> list[Interval | None]:
    """The mean of each column with its interval; None for a column that holds nothing.

    Args:
        table: [prompts, columns]; NaN where a prompt does not count for a column.
        seed: equal seeds give equal intervals. All columns see the same resamples of prompts.
        resamples: how often the prompts are drawn anew, with replacement.
    """
    prompts, columns = table.shape
    if not prompts or not columns:
        return [None] * columns
    counts = np.isfinite(table)
    values = np.where(counts, table, 0.0).astype(np.float32)
    present = counts.astype(np.float32)
    totals = counts.sum(axis=0)
    means = values.sum(axis=0, dtype=np.float64) / np.maximum(totals, 1)
    rng = np.random.default_rng(seed)
    drawn = np.full((resamples, columns), np.nan)
    step = max(1, _BLOCK // prompts)
    for start in range(0, resamples, step):
        weights = _resampled(rng, prompts, min(step, resamples - start))
        sums, drawn_totals = weights @ values, weights @ present
        block = drawn[start : start + len(weights)]
        np.divide(sums, drawn_totals, out=block, where=drawn_totals > 0)
    return [
        _interval(mean, drawn[:, column], int(total)) if total else None
        for column, (mean, total) in enumerate(zip(means.tolist(), totals.tolist(), strict=True))
    ]


def _resampled(rng: np.random.Generator, prompts: int, resamples: int) -> FloatArray:
    """How often each prompt was drawn: [resamples, prompts], rows sum to `prompts`."""
    picks = rng.integers(0, prompts, size=(resamples, prompts))
    picks += np.arange(resamples)[:, None] * prompts
    counts = np.bincount(picks.ravel(), minlength=resamples * prompts)
    return counts.reshape(resamples, prompts).astype(np.float32)


def _interval(mean: float, drawn: FloatArray, prompts: int) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail]) if prompts > 1 else (mean, mean)
    return Interval(mean, min(mean, float(low)), max(mean, float(high)), prompts)


def midranks(values: FloatArray | IntArray) -> FloatArray:
    """Ranks from 0 within each row, ties sharing the mean of their places: [rows, n] to [rows, n]."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    places = np.broadcast_to(np.arange(values.shape[1], dtype=np.float64), values.shape)
    edge = np.ones((len(values), 1), dtype=bool)
    differs = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(np.hstack([edge, differs]), places, 0), axis=1)
    ends = np.where(np.hstack([differs, edge]), places, values.shape[1])
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=1)
    return ranks


def rank_correlation(left: FloatArray, right: FloatArray) -> FloatArray:
    """Spearman's rho of each row, [rows, n] ranks each to [rows] in [-1, 1]; NaN where either side does not vary."""
    left, right = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (left, right))
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    rho = np.full(len(left), np.nan)
    np.divide((left * right).sum(axis=1), scale, out=rho, where=scale > 0)
    return rho
