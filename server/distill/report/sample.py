"""Figures of prompts in bounded memory: all of them, or above a bound a random sample of them."""

from __future__ import annotations

from random import Random

import numpy as np

from winnow.models.statistics import FloatArray, IntArray
from winnow.server.distill.report.answers import Column, Figures

KEPT = 100_000
"""How many prompts are kept; above it intervals are narrow, and every prompt has the same chance to be kept."""


class Sample:
    """A table with a row for every kept prompt and a column for every figure, float32, NaN where a prompt has none.

    Memory is 4 bytes a cell. Which prompts are kept depends on `seed` and on how many there are, not on what they hold.
    """

    def __init__(self, kept: int = KEPT, seed: int = 0) -> None:
        self.seen = 0
        self._kept = kept
        self._rng = Random(seed)
        self._columns: dict[Column, FloatArray] = {}

    @property
    def rows(self) -> int:
        """How many prompts are kept."""
        return min(self.seen, self._kept)

    @property
    def is_partial(self) -> bool:
        """Whether there were more prompts than are kept."""
        return self.seen > self._kept

    def add(self, prompts: int, figures: Figures) -> None:
        """Take in a batch of so many prompts; `figures` name them by their positions in the batch."""
        rows = self._places(prompts)
        used = rows[rows >= 0]
        for values in self._columns.values():
            values[used] = np.nan
        for column, positions, values in figures:
            places = rows[positions]
            is_kept = places >= 0
            self._of(column)[places[is_kept]] = values[is_kept]

    def _places(self, prompts: int) -> IntArray:
        """The row of each prompt of a batch, -1 for one that is not kept (reservoir sampling)."""
        taken: dict[int, int] = {}
        for position in range(prompts):
            row = self.seen if self.seen < self._kept else self._rng.randrange(self.seen + 1)
            self.seen += 1
            if row < self._kept:
                taken[row] = position  # a later prompt of the batch takes an earlier one's place
        rows = np.full(prompts, -1)
        for row, position in taken.items():
            rows[position] = row
        return rows

    def _of(self, column: Column) -> FloatArray:
        if column not in self._columns:
            self._columns[column] = np.full(self._kept, np.nan, dtype=np.float32)
        return self._columns[column]

    def column(self, column: Column) -> FloatArray:
        """One figure of every kept prompt: [rows]."""
        values = self._columns.get(column)
        return np.full(self.rows, np.nan, dtype=np.float32) if values is None else values[: self.rows]
