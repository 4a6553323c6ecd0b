"""Figures that say how good a reward model is. Pure functions over scores and labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


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
