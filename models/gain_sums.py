"""Sums over prompts from which expected gains are estimated, and the estimate: arrays alone, no files.

The share of a state, "the best of `seen` candidates has R_c = b", and of `step` more candidates is

    gain / (1 - b) · (seen + step) / step,

the part of what is missing to 1 that they close, over step / (seen + step), which is the chance that one of them is
the best of all, whatever the prompt's distribution. It varies little with `seen` and `step`, so that states share
what they know, and beyond the data the nearest state's share holds.
"""

from __future__ import annotations

from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from winnow.models.statistics import best_weights

FloatArray: TypeAlias = NDArray[np.float64]

SEEN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""The numbers of candidates seen for which gains are kept; those between are interpolated."""
STEPS = (1, 2, 4, 8, 16, 32)
"""The numbers of further candidates for which gains are kept."""
KNOTS = np.arange(-3.0, 7.01, 0.5)
"""logit(b) of the best rewards for which gains are kept: 0.047 to 0.9991."""
RATES = 1 / (1 + np.exp(-KNOTS))
SHAPE = (2, 3, len(SEEN), len(STEPS), len(KNOTS))
"""Of sums: [other prompts, safety prompts; `_SQUARES`, `_NEXT`, `_SHARES`; seen; step; knot].

They are those of a least-squares fit of the share by a line between each two knots: a best reward has a part of each of
the two knots around it. Summed over prompts are the squares of a knot's parts, the products with the next knot's, and
the parts times the share.
"""
_SQUARES, _NEXT, _SHARES = range(3)
PRIOR = 4.0
"""The number of prompts that a state's neighbours count for: so many of its own have as much weight."""
NO_DATA = 0.5
"""The share where nothing is known: one that is better closes half of what is missing."""
WIDTH = 4
"""Knots over which the first state of a class is smoothed, to either side."""
LACKS = -1.0
"""Stands for the reward of a candidate that has none."""


def empty() -> FloatArray:
    """Return sums of no prompts."""
    return np.zeros(SHAPE)


def add_whole(sums: FloatArray, rewards: FloatArray) -> None:
    """Add prompts of one class, whose numbers of candidates do not depend on their rewards.

    Args:
        sums: those of the class, changed here.
        rewards: R_c of each prompt's candidates in any order, [prompts, n]; `LACKS` for none.

    Every state counts with the exact expectation over all orders: that the best of `seen` random ones of the n has
    rank j, and the growth by `step` random ones of the other n - seen.
    """
    ordered = -np.sort(-rewards, axis=1)
    total = rewards.shape[1]
    usable = ordered >= 0
    places = _places(ordered[usable])
    for (row, seen), (column, step) in product(enumerate(SEEN), enumerate(STEPS)):
        if seen + step > total:
            continue
        further = np.zeros(total)
        further[: total - seen] = best_weights(total - seen, step)
        # The best of the further ones has rank i < j with probability further[i]: i counts what is left of the prompt.
        chance = np.cumsum(further) - further
        growth = np.cumsum(ordered * further, axis=1) - ordered * further - ordered * chance
        weights = np.broadcast_to(best_weights(total, seen).astype(np.float64), ordered.shape)
        _add(sums[:, row, column], places, weights[usable], _shares(ordered[usable], growth[usable], seen, step))


def add_wave(sums: FloatArray, before: FloatArray, wave: FloatArray) -> None:
    """Add one state of one prompt: the rewards `before`, [seen], and those of the `wave` that followed, [step]."""
    best = before.max(keepdims=True)
    if best[0] >= 0:
        seen, step = len(before), len(wave)
        growth = np.maximum(wave.max() - best, 0.0)
        place = sums[:, _nearest(SEEN, seen), _nearest(STEPS, step)]
        _add(place, _places(best), np.ones(1), _shares(best, growth, seen, step))


def _shares(best: FloatArray, growth: FloatArray, seen: int, step: int) -> FloatArray:
    missing = 1 - best
    share = np.divide(growth, missing, out=np.zeros_like(growth), where=missing > 0)
    return np.clip(share, 0.0, 1.0) * (seen + step) / step


def _places(best: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the knot below each best reward, and how far it lies on the way to the next, in [0, 1]."""
    inside = np.clip(best, RATES[0], RATES[-1])
    position = (np.log(inside / (1 - inside)) - KNOTS[0]) / (KNOTS[1] - KNOTS[0])
    below = np.clip(position.astype(np.intp), 0, len(KNOTS) - 2)
    return below, np.clip(position - below, 0.0, 1.0)


def _add(
    sums: FloatArray, places: tuple[NDArray[np.intp], FloatArray], weights: FloatArray, shares: FloatArray
) -> None:
    """Add weighted shares to `sums`, [3, knot], each to the two knots around its best reward."""
    below, along = places
    for knots, part in ((below, 1 - along), (below + 1, along)):
        sums[_SQUARES] += np.bincount(knots, weights * part * part, len(KNOTS))
        sums[_SHARES] += np.bincount(knots, weights * part * shares, len(KNOTS))
    sums[_NEXT] += np.bincount(below, weights * along * (1 - along), len(KNOTS))


def weights_of(sums: FloatArray) -> FloatArray:
    """Return the number of prompts at each knot, [..., seen, step, knot], of sums [..., 3, seen, step, knot]."""
    following = sums[..., _NEXT, :, :, :]
    before = np.concatenate([np.zeros_like(following[..., :1]), following[..., :-1]], axis=-1)
    weights: FloatArray = sums[..., _SQUARES, :, :, :] + following + before
    return weights


def _nearest(grid: tuple[int, ...], value: int) -> int:
    """Return the position of the number in `grid` that is nearest to `value` by their ratio."""
    return int(np.argmin(np.abs(np.log(np.array(grid) / value))))


def gains(sums: FloatArray) -> FloatArray:
    """Return the expected growth of the best R_c: [other prompts, safety prompts; seen; step; knot], in [0, 1].

    Few prompts are not believed. A state's share is shrunk towards that of the state with fewer seen, whose prompts
    are more; the first state's towards a wide average over best rewards and, in each class, towards all prompts'. The
    growth is then made not to increase with the best reward or with `seen`, nor to decrease with `step`.
    """
    together = _fitted(sums.sum(axis=0), None)
    classes = np.stack([_fitted(own, together) for own in sums])
    seen, steps = np.array(SEEN)[:, None, None], np.array(STEPS)[None, :, None]
    found = (1 - RATES) * np.clip(classes * steps / (seen + steps), 0.0, 1.0)
    counts = weights_of(sums) + PRIOR
    for place in np.ndindex(found.shape[:-1]):
        found[place] = _falling(found[place], counts[place])
    # The last bits, which depend on the machine, decide no stop.
    return np.round(-_rising(-_rising(found, axis=2), axis=1), 9)


def _fitted(sums: FloatArray, outer: FloatArray | None) -> FloatArray:
    """Return the shares of a class, [seen, step, knot]; `outer` are those of all classes."""
    shares = np.empty(sums.shape[1:])
    weights = weights_of(sums)
    for row, column in np.ndindex(len(SEEN), len(STEPS)):
        if row:
            prior = shares[row - 1, column]
            if outer is not None:  # and from there as all prompts go
                prior = prior * outer[row, column] / np.maximum(outer[row - 1, column], 1e-9)
        else:
            inner = shares[0, column - 1] if column else np.full(len(KNOTS), NO_DATA)
            prior = inner if outer is None else outer[0, column]
            wide = sums[_SHARES, 0, column] @ _KERNEL + PRIOR * prior
            prior = wide / (weights[0, column] @ _KERNEL + PRIOR)
        shares[row, column] = _solved(sums[:, row, column], np.clip(prior, 0.0, None))
    return shares


def _solved(sums: FloatArray, prior: FloatArray) -> FloatArray:
    """Return the shares at the knots, [knot], of least squares that `PRIOR` prompts at each knot draw to `prior`."""
    following = sums[_NEXT, :-1]
    matrix = np.diag(sums[_SQUARES] + PRIOR) + np.diag(following, 1) + np.diag(following, -1)
    return np.clip(np.linalg.solve(matrix, sums[_SHARES] + PRIOR * prior), 0.0, None)


_KERNEL = np.clip(1 - np.abs(KNOTS[:, None] - KNOTS[None, :]) / (WIDTH * (KNOTS[1] - KNOTS[0])), 0.0, 1.0)


def _falling(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the nearest values that do not increase, in weighted squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, length = value, weight, 1
        while pools and pools[-1][0] < mean:
            other, more, longer = pools.pop()
            mean = (mean * total + other * more) / (total + more)
            total, length = total + more, length + longer
        pools.append((mean, total, length))
    return np.array([mean for mean, _, length in pools for _ in range(length)])


def _rising(values: FloatArray, axis: int) -> FloatArray:
    """Return values that do not decrease along `axis`: half way between the least above and the greatest below.

    What is monotone along another axis stays so.
    """
    above: FloatArray = np.maximum.accumulate(values, axis=axis)
    below: FloatArray = np.flip(np.minimum.accumulate(np.flip(values, axis=axis), axis=axis), axis=axis)
    return (above + below) / 2
