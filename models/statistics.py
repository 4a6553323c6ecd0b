"""The statistics of reports, load tests and evaluations, each once.

Covers nearest-rank percentiles, intervals (the range of repeats, the bootstrap over prompts, Wilson's of a
share), the exact expectation of the best and the median of N out of K candidates, running moments, rank
correlation within prompts, and the KL bound of best-of-N. No input, no drawing. numpy is imported where arrays come
in, so that `winnow loadtest` runs without it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.floating]
    IntArray = NDArray[np.int64]

RESAMPLES = 1000
LEVEL = 0.95
_BLOCK = 2_000_000
"""Draws of a bootstrap that are held at once."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of ascending `ordered`.

    It is the least value that `percent` of them do not exceed: one that occurred, never one between two. Below
    100 values the 99th is the largest. NaN of none.
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """Return the nearest-rank median, a value that occurred; NaN of none."""
    return percentile(sorted(values), 50)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure that rests on `count` prompts or repeats, with the interval `low` to `high` around it.

    Which interval depends on where it comes from: `interval_of_repeats`, `wilson_interval` or a bootstrap. An end
    is infinite where it lies beyond the measurements; all three numbers are NaN where nothing was measured.
    """

    value: float
    low: float
    high: float
    count: int

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return not self.low <= value <= self.high


def interval_of_repeats(values: Iterable[float | None]) -> Interval | None:
    """Return the median of one value per repeat with their range; unknown values (None or NaN) are left out.

    Whatever the distribution, the range of R independent repeats holds its median with probability 1 -
    2^(1-R): 75 % for 3 repeats, 94 % for 5, 97 % for 6. None if no value is known.
    """
    known = [value for value in values if value is not None and not math.isnan(value)]
    return Interval(statistics.median(known), min(known), max(known), len(known)) if known else None


def bootstrap_interval(value: float, drawn: Iterable[float], count: int) -> Interval:
    """Return `value` with the 95 % percentile interval of the same statistic over resamples, `drawn`."""
    ordered, tail = sorted(drawn), 50 * (1 - LEVEL)
    return Interval(value, percentile(ordered, tail), percentile(ordered, 100 - tail), count)


def wilson_interval(successes: float, count: int) -> Interval:
    """Return the share of `successes` among `count` trials with its 95 % Wilson score interval; NaN of none.

    A trial that is half a success, such as a tie, counts as 0.5.

    Unlike the normal approximation it stays within 0 and 1, and is not empty at either end.
    """
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0)
    share = successes / count
    return Interval(share, *_wilson_ends(share, count), count)


def clustered_wilson_interval(trials: Iterable[tuple[Hashable, float]]) -> Interval:
    """Return the share of successes, as `wilson_interval`, among trials that are alike within a cluster.

    Each trial names its cluster, such as the pair that several people judged, and is 0, 0.5 or 1. Wilson's interval is
    that of an effective number of trials, the number divided by the design effect (Kish 1965): how much the variance
    between clusters exceeds that of independent trials, at least 1. Where all trials are equal, no variance tells, and
    a cluster is one trial. `count` counts trials.
    """
    clusters: dict[Hashable, list[float]] = {}
    for cluster, success in trials:
        clusters.setdefault(cluster, []).append(success)
    count, number = sum(map(len, clusters.values())), len(clusters)
    if not count:
        return wilson_interval(0, 0)
    share = sum(map(sum, clusters.values())) / count
    independent = share * (1 - share) / count
    if independent and number > 1:
        spread = sum((sum(found) - share * len(found)) ** 2 for found in clusters.values())
        effect = max(1.0, spread / count**2 / independent)
    else:
        effect = count / number
    return Interval(share, *_wilson_ends(share, count / effect), count)


def _wilson_ends(share: float, count: float) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval around a share of `count` trials, which may be an effective number."""
    z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / scale
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def resamples(count: int, seed: int, number: int = RESAMPLES) -> Iterator[IntArray]:
    """Yield `number` resamples of `count` prompts; equal seeds give equal draws.

    Each resample is [count] positions, drawn with replacement.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield rng.integers(0, count, size=count)


def mean_interval(values: Sequence[float], seed: int) -> Interval:
    """Return the mean of one value per prompt with its 95 % bootstrap interval; `values` is not empty."""
    import numpy as np

    (interval,) = bootstrap_means(np.asarray(values, dtype=np.float64)[:, None], seed)
    assert interval is not None
    return interval


def sizes_up_to(total: int) -> tuple[int, ...]:
    """Return the N that are shown for K = `total`: 1, 2, 4, … and K itself; none for 0."""
    powers = [1 << exponent for exponent in range(total.bit_length())]
    return tuple(sorted({*powers, total})) if total else ()


@lru_cache(maxsize=8192)
def best_weights(total: int, size: int) -> FloatArray:
    """Return each rank's probability to be the best of a random subset: [total], best rank first, sums to 1.

    All C(total, size) subsets count alike: C(total - 1 - rank, size - 1) of them have that rank as
    their best (Nakano et al. 2021, the unbiased estimate of best-of-n). Needs 1 ≤ size ≤ total.
    """
    subsets = math.comb(total, size)
    return _frozen([math.comb(total - 1 - rank, size - 1) / subsets for rank in range(total)])


def chance_of_none(hits: int, total: int, size: int) -> float:
    """Return the probability that a random subset of `size` of `total` holds none of its `hits`."""
    return math.comb(total - hits, size) / math.comb(total, size)


@lru_cache(maxsize=8192)
def median_weights(total: int, size: int) -> FloatArray:
    """Return each order statistic's weight in a random subset's expected median: [total], lowest first, sums to 1.

    The value at sorted position i is the j-th lowest of C(i, j) · C(total - 1 - i, size - 1 - j) of the
    C(total, size) subsets: it needs j companions from below and the others from above. An even size
    takes half of each of its two middle places. Needs 1 ≤ size ≤ total.
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
    import numpy as np

    array = np.array(values)
    array.setflags(write=False)
    return array


def kl_bound(size: int) -> float:
    """Return log N - (N - 1) / N, in nats: an upper bound on the KL divergence of best-of-N from its policy."""
    return math.log(size) - (size - 1) / size


def bootstrap_means(table: FloatArray, seed: int, number: int = RESAMPLES) -> list[Interval | None]:
    """Return the mean of each column with its 95 % bootstrap interval; None for a column that holds nothing.

    Args:
        table: [prompts, columns]; NaN where a prompt does not count for a column.
        seed: equal seeds give equal intervals. All columns see the same resamples of prompts.
        number: how often the prompts are drawn anew, with replacement.
    """
    import numpy as np

    prompts, columns = table.shape
    if not prompts or not columns:
        return [None] * columns
    counts = np.isfinite(table)
    values = np.where(counts, table, 0.0).astype(np.float32)
    present = counts.astype(np.float32)
    totals = counts.sum(axis=0)
    means = values.sum(axis=0, dtype=np.float64) / np.maximum(totals, 1)
    rng = np.random.default_rng(seed)
    drawn = np.full((number, columns), np.nan)
    step = max(1, _BLOCK // prompts)
    for start in range(0, number, step):
        weights = _resampled(rng, prompts, min(step, number - start))
        sums, drawn_totals = weights @ values, weights @ present
        block = drawn[start : start + len(weights)]
        np.divide(sums, drawn_totals, out=block, where=drawn_totals > 0)
    return [
        _interval(mean, drawn[:, column], int(total)) if total else None
        for column, (mean, total) in enumerate(zip(means.tolist(), totals.tolist(), strict=True))
    ]


def _resampled(rng: np.random.Generator, prompts: int, number: int) -> FloatArray:
    """Return how often each prompt was drawn: [number, prompts], rows sum to `prompts`."""
    import numpy as np

    picks = rng.integers(0, prompts, size=(number, prompts))
    picks += np.arange(number)[:, None] * prompts
    counts = np.bincount(picks.ravel(), minlength=number * prompts)
    return counts.reshape(number, prompts).astype(np.float32)


def _interval(mean: float, drawn: FloatArray, prompts: int) -> Interval:
    import numpy as np

    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail]) if prompts > 1 else (mean, mean)
    return Interval(mean, min(mean, float(low)), max(mean, float(high)), prompts)


def midranks(values: FloatArray | IntArray) -> FloatArray:
    """Return ranks from 0 within each row, ties sharing the mean of their places: [rows, n] to [rows, n]."""
    import numpy as np

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
    """Return Spearman's rho of each row, in [-1, 1]; NaN where either side does not vary.

    `left` and `right` are ranks, [rows, n]; the result is [rows].
    """
    import numpy as np

    left, right = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (left, right))
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    rho = np.full(len(left), np.nan)
    np.divide((left * right).sum(axis=1), scale, out=rho, where=scale > 0)
    return rho


class Moments:
    """Mean and standard deviation of a stream of numbers, by Welford's updates, which do not cancel.

    `lowest`, `highest`, the mean and the deviation are 0.0 while nothing was added.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.lowest = 0.0
        self.highest = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Add a number; finite."""
        self.lowest = min(self.lowest, value) if self.count else value
        self.highest = max(self.highest, value) if self.count else value
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self._squares += step * (value - self.mean)

    @property
    def deviation(self) -> float:
        """The standard deviation over all numbers, ≥ 0."""
        return math.sqrt(max(self._squares, 0.0) / self.count) if self.count else 0.0

    def whiten(self, value: float) -> float:
        """Return how many standard deviations `value` is above the mean; 0.0 where all numbers were equal."""
        deviation = self.deviation
        return (value - self.mean) / deviation if deviation > 0 else 0.0
