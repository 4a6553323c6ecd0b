"""The figures of each prompt: computed in batches from flat arrays over the answers, and kept in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from winnow.models.gains import could_win
from winnow.models.statistics import best_weights, median_weights, midranks, rank_correlation, sizes_up_to
from winnow.models.types import Branch
from winnow.server.distill.records import Arm, Record

if TYPE_CHECKING:
    from winnow.models.statistics import FloatArray, IntArray

BRANCHES = tuple(Branch)
FIFTHS = 5
"""The number of parts that a prompt's answers are divided into by their length."""
KEPT = 100_000
"""The number of prompts whose figures are kept; above it, intervals are narrow anyway."""


class ArmKind(NamedTuple):
    """A way of sampling answers, shared by the arms of many prompts; ordered by temperature."""

    temperature: float
    has_preprompt: bool

    @classmethod
    def of(cls, arm: Arm) -> Self:
        """Return the kind of `arm`."""
        return cls(arm.temperature, arm.is_context_distilled)


class Figure(NamedTuple):
    """A figure of each prompt: its name, its N (or its fifth), and its kind of arm, None for all together."""

    name: str
    size: int = 0
    kind: ArmKind | None = None


Figures: TypeAlias = "Iterator[tuple[Figure, IntArray, FloatArray]]"
"""Figures, each with positions of prompts in the batch, [m], and their values, [m]."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The scored answers of `prompts` prompts as arrays with one element per answer, [answers].

    The order is prompt after prompt, each prompt's best answer first. `prompt` is the position of an answer's prompt in
    the batch, `index` its number among the prompt's candidates. `is_first`: it is of a first wave, or there were no
    waves; only such answers are a fair sample. `could_win`: waves may stop for it. `reward`, `safety` and `helpfulness`
    are R_c, R_s and R_h in (0, 1), R_h NaN where it was not needed;
    `logit` is logit(R_c). `branch` is a position in `BRANCHES`, `kind` one in `kinds`. `is_whole`, [prompts], says that
    none of a prompt's candidates failed.
    """

    prompts: int
    is_whole: NDArray[np.bool_]
    prompt: IntArray
    index: IntArray
    is_first: NDArray[np.bool_]
    could_win: NDArray[np.bool_]
    is_winner: NDArray[np.bool_]
    reward: FloatArray
    logit: FloatArray
    safety: FloatArray
    helpfulness: FloatArray
    is_gated: NDArray[np.bool_]
    tokens: IntArray
    branch: IntArray
    is_cut: NDArray[np.bool_]
    kind: IntArray
    kinds: tuple[ArmKind, ...]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Answers:
        """Return the answers of `records`, which is not empty."""
        kinds = sorted({ArmKind.of(arm) for record in records for arm in record.arms})
        kind_of = {kind: position for position, kind in enumerate(kinds)}
        ranked = [(record, answer) for record in records for answer in record.selection.ranked]
        rewards = [answer.reward for _, answer in ranked]
        candidates = [answer.candidate for _, answer in ranked]
        counts = np.array([len(record.selection.scored) for record in records])
        is_winner = np.zeros(len(ranked), dtype=bool)
        is_winner[np.cumsum(counts) - counts] = True
        return cls(
            prompts=len(records),
            is_whole=np.array([not record.selection.failures for record in records]),
            prompt=np.repeat(np.arange(len(records)), counts),
            index=np.array([candidate.index for candidate in candidates]),
            is_first=np.array([record.is_first(answer.candidate) for record, answer in ranked]),
            could_win=np.array([could_win(answer, record.selection) for record, answer in ranked]),
            is_winner=is_winner,
            reward=np.array([reward.combined for reward in rewards]),
            logit=np.array([reward.combined_logit for reward in rewards]),
            safety=np.array([reward.safety for reward in rewards]),
            helpfulness=np.array([reward.helpfulness for reward in rewards], dtype=np.float64),
            is_gated=np.array([reward.is_gated for reward in rewards]),
            tokens=np.array([candidate.tokens for candidate in candidates]),
            branch=np.array([BRANCHES.index(reward.branch) for reward in rewards]),
            is_cut=np.array([candidate.finish_reason == "length" for candidate in candidates]),
            kind=np.array([kind_of[ArmKind.of(record.arm_of(answer.candidate))] for record, answer in ranked]),
            kinds=tuple(kinds),
        )

    def stacks(self, kind: int | None = None, *, first: bool = False) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the prompts that have equally many answers, of one kind if it is given, of `first` waves if asked.

        A stack is the positions of m prompts, [m], and those of their n answers, [m, n], best first. One stack has
        every prompt with that number of answers.
        """
        chosen = self.is_first if first else np.ones(len(self.kind), dtype=bool)
        rows = np.flatnonzero(chosen if kind is None else chosen & (self.kind == kind))
        counts = np.bincount(self.prompt[rows], minlength=self.prompts)
        starts = np.cumsum(counts) - counts
        for count in np.unique(counts[counts > 0]):
            prompts = np.flatnonzero(counts == count)
            yield prompts, rows[starts[prompts][:, None] + np.arange(count)]

    def figures(self) -> Figures:
        """Yield everything that is averaged over prompts; what needs a fair sample, from the first waves."""
        winner = self.reward[self.is_winner]
        for prompts, rows in self.stacks(first=True):
            rewards = self.reward[rows]
            yield Figure("mean"), prompts, rewards.mean(axis=1)
            yield Figure("gain"), prompts, winner[prompts] - rewards.mean(axis=1)
            yield from self._curves(prompts, rewards, None)
        for prompts, rows in self.stacks():
            rewards = self.reward[rows]
            yield Figure("winner"), prompts, rewards[:, 0]
            yield from _lengths(prompts, self.tokens[rows], self.logit[rows], rewards)
        for position, kind in enumerate(self.kinds):
            for prompts, rows in self.stacks(position, first=True):
                yield from self._curves(prompts, self.reward[rows], kind)

    def _curves(self, prompts: IntArray, rewards: FloatArray, kind: ArmKind | None) -> Figures:
        """Yield best and median of N for N = 1, 2, 4, …, and for K if none of a prompt's candidates failed."""
        total = rewards.shape[1]
        ascending = np.sort(rewards, axis=1)
        for size in sizes_up_to(total):
            counts = slice(None) if size & (size - 1) == 0 else self.is_whole[prompts]
            yield Figure("best", size, kind), prompts[counts], (rewards @ best_weights(total, size))[counts]
            if kind is None:
                yield Figure("median", size), prompts[counts], (ascending @ median_weights(total, size))[counts]


def _lengths(prompts: IntArray, tokens: IntArray, logits: FloatArray, rewards: FloatArray) -> Figures:
    """Yield length and reward within prompts. Rewards are ranked as logits, which do not saturate."""
    total = tokens.shape[1]
    mean = tokens.mean(axis=1)
    yield Figure("winner_tokens"), prompts, tokens[:, 0].astype(np.float64)
    yield Figure("tokens"), prompts, mean
    yield Figure("longer"), prompts, tokens[:, 0] / np.maximum(mean, 1) - 1
    if total < 3:
        return
    ranks = midranks(tokens)
    rho = rank_correlation(ranks, midranks(logits))
    yield Figure("rho"), prompts, rho
    if total < FIFTHS:
        return
    above = rewards - rewards.mean(axis=1, keepdims=True)
    fifth = (FIFTHS * (ranks + 0.5) / total).astype(np.int64)
    for part in range(FIFTHS):
        inside = fifth == part
        counts = inside.sum(axis=1)
        has = (counts > 0) & np.isfinite(rho)
        yield Figure("fifth", part), prompts[has], (above * inside).sum(axis=1)[has] / counts[has]


class Sample:
    """The figures of all prompts, or of a random sample of `kept` if there are more; every prompt has the same chance.

    The table has a row per kept prompt and a column per figure, float32, NaN where a prompt has none. The choice of
    prompts depends on `seed` and on their number, not on their content.
    """

    def __init__(self, kept: int = KEPT, seed: int = 0) -> None:
        self.seen = 0
        self._kept = kept
        self._rng = Random(seed)
        self._columns: dict[Figure, FloatArray] = {}

    @property
    def rows(self) -> int:
        """The number of prompts that are kept."""
        return min(self.seen, self._kept)

    @property
    def is_partial(self) -> bool:
        """Whether some prompts were not kept."""
        return self.seen > self._kept

    def add(self, prompts: int, figures: Figures) -> None:
        """Add a batch of `prompts` prompts; `figures` name them by their positions in the batch."""
        rows = self._places(prompts)
        used = rows[rows >= 0]
        for values in self._columns.values():
            values[used] = np.nan
        for figure, positions, values in figures:
            places = rows[positions]
            is_kept = places >= 0
            self._of(figure)[places[is_kept]] = values[is_kept]

    def _places(self, prompts: int) -> IntArray:
        """Return the row of each prompt of a batch, -1 for one that is not kept (reservoir sampling)."""
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

    def _of(self, figure: Figure) -> FloatArray:
        if figure not in self._columns:
            self._columns[figure] = np.full(self._kept, np.nan, dtype=np.float32)
        return self._columns[figure]

    @property
    def figures(self) -> list[Figure]:
        """The figures that some prompt has."""
        return list(self._columns)

    def values(self, figure: Figure) -> FloatArray:
        """Return one figure of every kept prompt, [rows]."""
        values = self._columns.get(figure)
        return np.full(self.rows, np.nan, dtype=np.float32) if values is None else values[: self.rows]
