"""The control: the same rows of annotations, with their choices shuffled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

SIDES = ("chosen", "rejected")


def shuffled(rows: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return the rows, half of them, drawn by lot, with the chosen answer and the rejected one exchanged.

    What is said of one of the two answers goes with it, such as its safety; prompts, ratings and order stay.
    """
    turned = set(Random(f"shuffled-{seed}").sample(range(len(rows)), len(rows) // 2))
    return [exchanged(row) if place in turned else dict(row) for place, row in enumerate(rows)]


def exchanged(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the names of its sides exchanged."""
    return {_other(key): value for key, value in row.items()}


def _other(key: str) -> str:
    for one, other in (SIDES, SIDES[::-1]):
        if key == one or key.startswith(f"{one}_"):
            return other + key.removeprefix(one)
    return key
