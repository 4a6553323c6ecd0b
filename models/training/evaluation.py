"""Figures that say how good a reward model is. Pure functions over scores and labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from winnow.models.statistics import Interval, wilson_interval
from winnow.models.types import is_gated, sigmoid

BINS = 10
"""Bins of a reliability diagram."""


def share(flags: Iterable[bool]) -> float:
    """Return the share of true values, in [0, 1]; NaN of none."""
    values = list(flags)
    return sum(values) / len(values) if values else math.nan


def pair_accuracy(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """Return the share of pairs whose chosen answer scores strictly higher than the rejected one."""
    return share(better > worse for better, worse in zip(chosen, rejected, strict=True))


def precision_and_recall(predicted: Sequence[bool], actual: Sequence[bool]) -> tuple[float, float]:
    """Return a detector's precision and recall, in [0, 1]; NaN if nothing is predicted, or nothing actual."""
    labels = list(zip(predicted, actual, strict=True))
    return share(is_actual for is_predicted, is_actual in labels if is_predicted), share(
        is_predicted for is_predicted, is_actual in labels if is_actual
    )


@dataclass(frozen=True, slots=True)
class GateFigures:
    """The gate R_s < 0.15 as a detector of unsafe answers, and R_s as a probability of safe ones.

    `over_refusal` is the share of safe answers that count as unsafe. `ece` is the expected calibration error and
    `brier` the mean squared error of 1 − R_s.
    """

    precision: Interval
    recall: Interval
    over_refusal: Interval
    ece: float
    brier: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of similar predicted probability to be unsafe: their mean prediction, and the share that is unsafe."""

    predicted: float
    unsafe: Interval


def gate_figures(logits: Sequence[float], is_unsafe: Sequence[bool]) -> GateFigures:
    """Return the figures of calibrated safety logits; of none of a kind, NaN."""
    gated = [is_gated(value) for value in logits]
    rows = list(zip(gated, is_unsafe, strict=True))
    hits = sum(below and unsafe for below, unsafe in rows)
    unsafe = sum(is_unsafe)
    return GateFigures(
        precision=wilson_interval(hits, sum(gated)),
        recall=wilson_interval(hits, unsafe),
        over_refusal=wilson_interval(sum(gated) - hits, len(rows) - unsafe),
        ece=expected_calibration_error(logits, is_unsafe),
        brier=_mean([(sigmoid(-value) - label) ** 2 for value, label in zip(logits, is_unsafe, strict=True)]),
    )


def reliability(logits: Sequence[float], is_unsafe: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """Return the answers by their predicted probability to be unsafe, in `bins` of equal width; empty ones left out."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for value, label in zip(logits, is_unsafe, strict=True):
        chance = sigmoid(-value)
        members.setdefault(min(int(chance * bins), bins - 1), []).append((chance, label))
    return [
        Bin(_mean([chance for chance, _ in rows]), wilson_interval(sum(label for _, label in rows), len(rows)))
        for _, rows in sorted(members.items())
    ]


def expected_calibration_error(logits: Sequence[float], is_unsafe: Sequence[bool], bins: int = BINS) -> float:
    """Return the mean distance between predicted and found shares of unsafe answers, bins weighted by their rows."""
    found = reliability(logits, is_unsafe, bins)
    if not logits:
        return math.nan
    return math.fsum(abs(bin.predicted - bin.unsafe.value) * bin.unsafe.count for bin in found) / len(logits)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


@dataclass(frozen=True, slots=True)
class Cut:
    """The gate at another threshold, R_s below `threshold`: its precision and recall."""

    threshold: float
    precision: float
    recall: float


def gate_curve(logits: Sequence[float], is_unsafe: Sequence[bool], most: int = 200) -> list[Cut]:
    """Return precision and recall at every threshold that differs, lowest first, thinned to about `most`.

    None of no unsafe answer.
    """
    rows = sorted(zip(logits, is_unsafe, strict=True))
    unsafe, hits, cuts = sum(is_unsafe), 0, []
    for place, (value, label) in enumerate(rows, 1):
        hits += label
        following = rows[place][0] if place < len(rows) else math.inf
        if following > value and unsafe:
            threshold = 1.0 if math.isinf(following) else sigmoid((value + following) / 2)
            cuts.append(Cut(threshold, hits / place, hits / unsafe))
    step = max(1, len(cuts) // most)
    return cuts[::-1][::step][::-1]
