"""Synthetic preferences between token sequences whose scores are known, and a tiny checkpoint to train on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.models.engines import tiny
from winnow.models.training.examples import Example

END = 1
"""The EOS of `tiny`'s tokenizers."""
GOOD, BAD = range(100, 120), range(200, 220)
TINY = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, "initializer_range": 0.1}


def policy(folder: Path, **config: Any) -> Path:
    """A tiny untrained causal model."""
    return tiny.checkpoint(folder, "llama", tiny.byte_level(), causal=True, **{**TINY, **config})


def true_score(ids: Sequence[int]) -> float:
    """Good tokens less bad ones, times 0.7."""
    return 0.7 * (sum(token in GOOD for token in ids) - sum(token in BAD for token in ids))


def answer(rng: Random) -> tuple[int, ...]:
    """An answer of 4 to 12 tokens, its prompt and EOS."""
    quality = rng.random()
    words = [rng.choice(GOOD if rng.random() < quality else BAD) for _ in range(rng.randint(4, 12))]
    return (0, *words, END)


def comparisons(count: int, seed: int = 0, labels: bool = True) -> list[Example]:
    """Pairs whose winner is drawn by Bradley and Terry's model, and answers with labels drawn by their scores."""
    rng = Random(seed)
    found = []
    for _ in range(count):
        pair = [answer(rng), answer(rng)]
        if rng.random() > sigmoid(true_score(pair[0]) - true_score(pair[1])):
            pair.reverse()
        flags = [rng.random() < sigmoid(true_score(ids)) for ids in pair] if labels else [None, None]
        found.append(Example(pair[0], pair[1], 0.0, *flags))
    return found


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
