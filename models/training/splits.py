"""Splits of data by prompt, so that no prompt is on both sides; they depend on prompts and seed, never on the order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def held_out(prompts: Iterable[str], seed: int, share: float = 0.5) -> set[str]:
    """Return `share` of the distinct prompts, rounded down; `share` is in (0, 1)."""
    ordered = sorted(set(prompts), key=lambda prompt: hashlib.blake2b(f"{seed}\0{prompt}".encode()).digest())
    return set(ordered[: int(len(ordered) * share)])
