"""Autoscaling on candidates: replicas for those in flight and queued, so that few wait.

The module is sent to Ray's controller as it is, and imports nothing of Winnow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

CANDIDATES, PLACES = "winnow_candidates", "winnow_places"
"""The names of a replica's reports: its candidates, in flight and queued; and how many may be in flight at once."""
TARGET = 0.75
"""Share of the places that are to be taken."""


def wanted(candidates: Mapping[Any, float], places: Mapping[Any, float], current: int) -> int:
    """Return the number of replicas for these candidates, by replica; `current` as long as none has reported."""
    capacity = max(places.values(), default=0)
    if not candidates or not capacity:
        return current
    return max(1, math.ceil(sum(candidates.values()) / (TARGET * capacity)))


def by_candidates(context: Any) -> tuple[int, dict[str, Any]]:
    """Return the number of replicas that Ray should aim at: its policy; bounds and delays are Ray's own."""
    metrics = context.aggregated_metrics or {}
    found = wanted(metrics.get(CANDIDATES, {}), metrics.get(PLACES, {}), context.target_num_replicas)
    return found, {}
