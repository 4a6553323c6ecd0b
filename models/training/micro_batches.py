"""The order in which a reward model sees its examples, and their tensors: sets of similar length, little padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any

import torch
from torch import Tensor

from winnow.models.training.examples import Example, Recipe

POOL = 64
"""Micro-batches that are sorted by length together, at least: fewer pad more, more make steps of one length."""


@dataclass(frozen=True, slots=True)
class Order:
    """All micro-batches of a run, in order, as indices of examples. `per_step` of them make a step.

    Every example is in each whole epoch once. A step may hold the end of one epoch and the beginning of the next.
    """

    micro_batches: Sequence[Sequence[int]]
    per_step: int
    ends: frozenset[int]
    """Steps, counted from 1, in which an epoch ends."""

    @property
    def steps(self) -> int:
        """The number of steps."""
        return -(-len(self.micro_batches) // self.per_step)

    def __len__(self) -> int:
        return len(self.micro_batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(indices) for indices in self.micro_batches)


def order_of(examples: Sequence[Example], recipe: Recipe) -> Order:
    """Return the order of a run: it depends on the lengths, the recipe and its seed alone."""
    size = min(recipe.micro_batch, recipe.batch)
    while recipe.batch % size:
        size -= 1
    per_step = recipe.batch // size
    pool = recipe.batch * max(1, -(-POOL * size // recipe.batch))
    lengths = [max(len(example.chosen), len(example.rejected or ())) for example in examples]
    rng = Random(recipe.seed)
    micro_batches: list[list[int]] = []
    ends: set[int] = set()
    left = max(1, round(recipe.epochs * len(examples)))
    while left > 0:
        order = rng.sample(range(len(examples)), len(examples))[:left]
        left -= len(order)
        for start in range(0, len(order), pool):
            micro_batches += _similar(order[start : start + pool], lengths, size, rng)
        ends.add(-(-len(micro_batches) // per_step))
    return Order(micro_batches, per_step, frozenset(ends))


def _similar(indices: Sequence[int], lengths: Sequence[int], size: int, rng: Random) -> list[list[int]]:
    """Return shuffled sets of `size` indices of similar length; the last may have fewer."""
    near = sorted(indices, key=lengths.__getitem__)
    whole = len(near) - len(near) % size
    sets = [near[start : start + size] for start in range(0, whole, size)]
    rng.shuffle(sets)
    return [*sets, near[whole:]] if whole < len(near) else sets


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes the tensors of a micro-batch, padded on the right with `pad_id`.

    Rows are the chosen answers and after them the rejected ones, in order. `pairs` holds the rows of chosen answers
    that have a rejected one, `margin` their m(r), and `target` the labels of all rows: 1, 0, or -1 for none.
    """

    pad_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the tensors of rows of `columns`."""
        pairs = [place for place, row in enumerate(rows) if row["rejected_ids"]]
        ids = [*(row["chosen_ids"] for row in rows), *(rows[place]["rejected_ids"] for place in pairs)]
        labels = [*(row["chosen_label"] for row in rows), *(rows[place]["rejected_label"] for place in pairs)]
        return {
            **padded(ids, self.pad_id),
            "pairs": torch.tensor(pairs, dtype=torch.long),
            "margin": torch.tensor([rows[place]["margin"] for place in pairs], dtype=torch.float32),
            "target": torch.tensor(labels, dtype=torch.float32),
        }


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask`, [rows, longest], padded on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.full(mask.shape, pad_id)
    ids[mask] = torch.tensor(list(chain.from_iterable(rows)))
    return {"input_ids": ids, "attention_mask": mask.long()}


def columns(examples: Sequence[Example]) -> dict[str, list[Any]]:
    """Return the columns that TRL recognises as tokenised, and ours: margin, and labels as 1, 0 or -1 for none."""
    return {
        "chosen_ids": [example.chosen for example in examples],
        "rejected_ids": [example.rejected or () for example in examples],
        "margin": [float(example.margin) for example in examples],
        "chosen_label": [_number(example.chosen_label) for example in examples],
        "rejected_label": [_number(example.rejected_label) for example in examples],
    }


def _number(label: bool | None) -> int:
    return -1 if label is None else int(label)
