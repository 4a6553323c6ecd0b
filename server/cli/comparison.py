"""The scores of a served reward model against its reference's: differences, ranks, tolerance. Arithmetic only.

Every length is measured in the reference's own spread, so that a verdict depends neither on the scale of a model's
logits nor on its calibration. `docs/decisions.md` has the measurements behind the shares.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass

Scores = list[list[float]]
"""Calibrated logits, `[prompt][answer]`."""

FULL_PRECISION_SHARE = 0.05
LOW_PRECISION_SHARE = 0.25
"""Largest accepted |Δ logit| as a share of the spread: both sides in float32, and either in bfloat16 or float16."""
RMS_PART = 5
"""The root mean square of all Δ may be this part of the tolerance: rounding errors have outliers, a calibration that
the engine adds moves every score."""
RESOLUTION = 1e-6
"""A spread below this share of the largest |logit| is rounding: the model gives every answer the same score."""


ITSELF = "itself"
"""The precision of a reference that is the served model, one by one, because its weights are not here."""


@dataclass(frozen=True, slots=True)
class Served:
    """The scores of the reward model `name`, served in `dtype`: one by one, again behind cached prefixes, all at once.

    `failure` says what its checks at the start of a server found; None if nothing, or if they were not asked for.
    `label_mass` is the least probability that its two label tokens had together; None for a model without two.
    """

    name: str
    dtype: str
    alone: Scores
    cached: Scores
    together: Scores
    failure: str | None = None
    label_mass: float | None = None

    @property
    def ways(self) -> tuple[Scores, Scores, Scores]:
        """The scores in the three ways."""
        return self.alone, self.cached, self.together


@dataclass(frozen=True, slots=True)
class Reference:
    """The scores of the same checkpoint in transformers, computed in `dtype` on `device`."""

    dtype: str
    device: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of one reward model, as served and by its reference."""

    served: Served
    reference: Reference

    @property
    def is_own_reference(self) -> bool:
        """Whether there was no reference but the served scores themselves: only alone and batched are compared."""
        return self.reference.dtype == ITSELF

    @property
    def count(self) -> int:
        """The number of scores compared."""
        return sum(map(len, self.reference.scores))

    @property
    def spread(self) -> float:
        """Standard deviation of the reference's calibrated logits over all prompts and answers; or NaN."""
        scores = self.reference.scores
        return statistics.pstdev(_flat(scores)) if _are_finite(scores) else math.nan

    @property
    def tolerance(self) -> float:
        """Largest accepted |Δ logit|, and largest gap between two answers whose order may change."""
        is_full = self.served.dtype == self.reference.dtype == "float32"
        return (FULL_PRECISION_SHARE if is_full else LOW_PRECISION_SHARE) * self.spread

    @property
    def largest_difference(self) -> float:
        """Largest |Δ logit| between a served score, in any of the ways, and the reference."""
        reference = self.reference.scores
        return max(_largest_difference(served, reference) for served in self.served.ways)

    @property
    def rms_difference(self) -> float:
        """Root mean square of Δ logit, of the served scores in the way in which it is largest."""
        reference = self.reference.scores
        return max(_rms_difference(served, reference) for served in self.served.ways)

    @property
    def cache_difference(self) -> float:
        """Largest |Δ logit| between a score computed whole and the same score behind a cached prefix."""
        return _largest_difference(self.served.alone, self.served.cached)

    @property
    def batch_difference(self) -> float:
        """Largest |Δ logit| between a score computed alone and the same score computed in a batch."""
        return _largest_difference(self.served.alone, self.served.together)

    @property
    def ranks_changed(self) -> int:
        """The number of pairs of answers to one prompt that the ways and the reference do not put in one order.

        A pair counts if its gap in one of two ways that disagree is larger than the tolerance. A tie is an order too.
        """
        changed, tolerance = 0, self.tolerance
        for prompt in zip(self.reference.scores, *self.served.ways, strict=True):
            for one, other in itertools.combinations(zip(*prompt, strict=True), 2):
                changed += _is_reversed([left - right for left, right in zip(one, other, strict=True)], tolerance)
        return changed

    @property
    def is_constant(self) -> bool:
        """Whether the checkpoint gives every answer the same score, so that there is nothing to compare."""
        return self.spread <= RESOLUTION * max(map(abs, _flat(self.reference.scores)))

    @property
    def is_undefined(self) -> bool:
        """Whether the reference's own scores are not all numbers, so that there is nothing to compare with."""
        return not _are_finite(self.reference.scores)

    @property
    def differs(self) -> bool:
        """Whether the served scores are not the checkpoint's, or are not numbers."""
        if not all(map(_are_finite, (self.reference.scores, *self.served.ways))):
            return True
        is_near = self.largest_difference <= self.tolerance and self.rms_difference <= self.tolerance / RMS_PART
        return not is_near or self.ranks_changed > 0

    @property
    def passes(self) -> bool:
        """Whether the served scores are the checkpoint's, and the checkpoint tells answers apart."""
        return not (self.differs or self.is_constant or self.served.failure)


def _is_reversed(gaps: list[float], tolerance: float) -> bool:
    """Whether two of the gaps have different signs and one of these two is larger than the tolerance."""
    return any(
        _sign(one) != _sign(other) and max(abs(one), abs(other)) > tolerance
        for one, other in itertools.combinations(gaps, 2)
    )


def _sign(gap: float) -> int:
    return (gap > 0) - (gap < 0)


def _largest_difference(left: Scores, right: Scores) -> float:
    return max(abs(one - other) for one, other in zip(_flat(left), _flat(right), strict=True))


def _rms_difference(left: Scores, right: Scores) -> float:
    one, other = _flat(left), _flat(right)
    return math.dist(one, other) / math.sqrt(len(one))


def _are_finite(scores: Scores) -> bool:
    return all(map(math.isfinite, _flat(scores)))


def _flat(scores: Scores) -> list[float]:
    return list(itertools.chain(*scores))
