"""Calibration of a reward model: the scale and bias that make its raw score the logit of a safe answer.

Platt's method: a logistic regression of the label on the one score. Its intervals take the rows of one prompt as
dependent. A gate of a wanted precision keeps the scale and moves the bias. Nothing here knows of files or engines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from winnow.models.errors import NoCalibration
from winnow.models.reward_model import Calibration
from winnow.models.statistics import LEVEL, Interval
from winnow.models.types import SAFETY_THRESHOLD, logit

LEAST_ROWS = 50
"""Rows of each label, in the whole, below which nothing is fitted."""
LEAST_PROMPTS = 20
LEAST_IN_HALF = 15
"""Rows of each label in either half."""
LEAST_GATED = 20
"""Unsafe rows that a threshold of a wanted precision has to rest on."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Answers with their raw scores, labels and prompts: one entry each in every field."""

    raw: tuple[float, ...]
    is_unsafe: tuple[bool, ...]
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def unsafe(self) -> int:
        """The number of unsafe answers."""
        return sum(self.is_unsafe)

    def split(self, held_out: set[str]) -> tuple[Scored, Scored]:
        """Return the answers to prompts outside `held_out`, and those to prompts in it."""
        return self._kept(held_out, inside=False), self._kept(held_out, inside=True)

    def _kept(self, prompts: set[str], *, inside: bool) -> Scored:
        rows = zip(self.raw, self.is_unsafe, self.prompts, strict=True)
        kept = [row for row in rows if (row[2] in prompts) is inside]
        raw, is_unsafe, names = zip(*kept, strict=True) if kept else ((), (), ())
        return Scored(raw, is_unsafe, names)


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted calibration, with the 95 % intervals of its numbers.

    `is_separable` says that one score divides the labels without an exception: then no finite scale is the best, and
    this one is bounded by the number of rows.
    """

    calibration: Calibration
    scale: Interval
    bias: Interval
    is_separable: bool = False


def require_enough(scored: Scored) -> None:
    """Check that both labels have enough rows, and the scores some spread.

    Raises:
        NoCalibration: they have not.
    """
    safe = len(scored) - scored.unsafe
    if min(scored.unsafe, safe) < LEAST_ROWS:
        raise NoCalibration(
            f"there are {scored.unsafe} unsafe and {safe} safe answers; at least {LEAST_ROWS} of each are needed, and "
            "a few hundred for a precision that is known to some percent"
        )
    if (prompts := len(set(scored.prompts))) < LEAST_PROMPTS:
        raise NoCalibration(
            f"the answers are to {prompts} prompts, which are split in halves; at least {LEAST_PROMPTS} are needed"
        )
    if len(set(scored.raw)) == 1:
        raise NoCalibration(
            f"every answer has the score {scored.raw[0]:g}; this model tells none from another (`winnow check`)"
        )


def require_both_labels(half: Scored, name: str) -> None:
    """Check that a half has rows of both labels.

    Raises:
        NoCalibration: it has too few.
    """
    if min(half.unsafe, len(half) - half.unsafe) < LEAST_IN_HALF:
        raise NoCalibration(
            f"of the half of the prompts that {name}, {half.unsafe} answers are unsafe and {len(half) - half.unsafe} "
            f"safe; at least {LEAST_IN_HALF} of each are needed: give more prompts, or another --seed"
        )


def fit(scored: Scored) -> Fit:
    """Return the calibration whose sigmoid is the probability that an answer is safe.

    Raises:
        NoCalibration: every answer has the same score.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    if len(set(scored.raw)) == 1:
        raise NoCalibration(
            f"every answer to the half of the prompts that is fitted on has the score {scored.raw[0]:g}: the scores "
            "are too coarse for so few prompts; give more, or another --seed"
        )
    raw = np.asarray(scored.raw, dtype=np.float64)
    safe = ~np.asarray(scored.is_unsafe, dtype=bool)
    centre, spread = float(raw.mean()), float(raw.std())
    places = (raw - centre) / spread
    is_separable = _is_separable(places, safe)
    targets = _smoothed(safe) if is_separable else safe.astype(np.float64)
    slope, intercept = _regression(places, targets)
    covariance = _covariance(places, targets, scored.prompts, slope, intercept)
    # From standardised scores back to raw ones.
    back = np.array([[1 / spread, 0.0], [-centre / spread, 1.0]])
    scale, bias = (back @ [slope, intercept]).tolist()
    scale_error, bias_error = np.sqrt(np.diag(back @ covariance @ back.T)).tolist()
    prompts = len(set(scored.prompts))
    return Fit(
        Calibration(scale, bias), _around(scale, scale_error, prompts), _around(bias, bias_error, prompts), is_separable
    )


def require_sense(found: Fit, current: float) -> None:
    """Check that a fitted scale orders the answers, and as the `current` scale does: ranks must not change.

    Raises:
        NoCalibration: it does not.
    """
    if not found.scale.excludes(0):
        raise NoCalibration(
            f"the score does not tell safe from unsafe: its scale is {found.scale.value:.3g}, between "
            f"{found.scale.low:.3g} and {found.scale.high:.3g}; is this a safety model, and are these its template's "
            "answers? More rows narrow the interval"
        )
    if (found.calibration.scale > 0) != (current > 0):
        raise NoCalibration(
            f"the score {'rises' if found.calibration.scale < 0 else 'falls'} with harm, and the card's scale is "
            f"{current:g}: calibrating would turn every rank around. A cost model needs a card with scale = -1, a "
            "reward model one with scale = 1; otherwise the labels are the wrong way round"
        )


def with_precision(scored: Scored, scale: float, precision: float) -> Calibration:
    """Return the calibration of this `scale` whose gate, R_s < 0.15, has `precision` on unsafe answers, or more.

    Of all such thresholds it takes the one with the highest recall.

    Raises:
        NoCalibration: no threshold has it on enough answers, or refusing every answer has it.
    """
    base = scored.unsafe / len(scored)
    if base >= precision:
        raise NoCalibration(
            f"{base:.0%} of the answers are unsafe: a gate that refuses every answer has the precision {precision:g}; "
            "ask for a higher one, or give data with more safe answers"
        )
    oriented = np.asarray(scored.raw, dtype=np.float64) * math.copysign(1.0, scale)
    order = np.argsort(oriented, kind="stable")
    values, unsafe = oriented[order], np.cumsum(np.asarray(scored.is_unsafe)[order])
    shares = unsafe / np.arange(1, len(values) + 1)
    # A threshold stands between two different scores.
    usable = np.append(values[1:] > values[:-1], False) & (unsafe >= LEAST_GATED)
    reached = np.flatnonzero(usable & (shares >= precision))
    if not len(reached):
        best = f"; the highest is {shares[usable].max():.3f}" if usable.any() else ""
        raise NoCalibration(
            f"no threshold of this model has the precision {precision:g} on {LEAST_GATED} unsafe answers or more{best}"
        )
    place = int(reached[-1])
    threshold = (values[place] + values[place + 1]) / 2 * math.copysign(1.0, scale)
    return Calibration(scale, logit(SAFETY_THRESHOLD) - scale * float(threshold))


def _is_separable(raw: FloatArray, safe: NDArray[np.bool_]) -> bool:
    """Whether one score divides the labels, but for ties with it."""
    return bool(raw[safe].min() >= raw[~safe].max() or raw[safe].max() <= raw[~safe].min())


def _smoothed(safe: NDArray[np.bool_]) -> FloatArray:
    """Return Platt's targets: labels that leave room for one exception more than was seen."""
    good, bad = int(safe.sum()), int((~safe).sum())
    return np.where(safe, (good + 1) / (good + 2), 1 / (bad + 2))


def _regression(places: FloatArray, targets: FloatArray) -> tuple[float, float]:
    """Return slope and intercept of an unpenalised logistic regression; targets between 0 and 1 are weights."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    rows = np.concatenate([places, places])[:, None]
    labels = np.repeat([1, 0], len(places))
    weights = np.concatenate([targets, 1 - targets])
    used = weights > 0
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(rows[used], labels[used], sample_weight=weights[used])
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _covariance(
    places: FloatArray, targets: FloatArray, prompts: Sequence[str], slope: float, intercept: float
) -> FloatArray:
    """Return the covariance of slope and intercept, robust against rows of one prompt that depend on each other."""
    design = np.stack([places, np.ones_like(places)], axis=1)
    chances = 1 / (1 + np.exp(-np.clip(design @ [slope, intercept], -500, 500)))
    information = (design * (chances * (1 - chances))[:, None]).T @ design
    inverse = np.linalg.pinv(information)
    _, cluster = np.unique(np.asarray(prompts), return_inverse=True)
    sums = np.zeros((int(cluster.max()) + 1, 2))
    np.add.at(sums, cluster, design * (targets - chances)[:, None])
    covariance: FloatArray = inverse @ (sums.T @ sums) @ inverse
    return covariance * len(sums) / max(1, len(sums) - 1)


def _around(value: float, error: float, count: int) -> Interval:
    half = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    return Interval(value, value - half, value + half, count)
