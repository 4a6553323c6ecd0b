"""A batch of prompts as flat arrays over their answers, and the figures of each prompt that are averaged later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from winnow.models.statistics import (
    FloatArray,
    IntArray,
    best_weights,
    median_weights,
    midranks,
    rank_correlation,
    sizes_up_to,
)
from winnow.models.types import Branch
from winnow.server.distill.records import Arm, Record

BRANCHES = tuple(Branch)
FIFTHS = 5
"""A prompt's answers are put in so many parts by their length."""


class Kind(NamedTuple):
    """How answers were sampled: what arms of many prompts have in common. Orders by temperature."""

    temperature: float
    has_preprompt: bool

    @classmethod
    def of(cls, arm: Arm) -> Self:
        """The kind that `arm` is of."""
        return cls(arm.temperature, arm.preprompt is not None)


class Column(NamedTuple):
    """A figure that every prompt may have one of: its name, the N (or the fifth) it is for, and the kind of arm, None for all."""

    name: str
    size: int = 0
    kind: Kind | None = None


Figures = Iterator[tuple[Column, IntArray, FloatArray]]
"""A column, positions of prompts in the batch, and their values: [m], [m]."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The scored answers of `prompts` prompts, an element an answer: prompt after prompt, each prompt's best answer first.

    `prompt` is the position of an answer's prompt in the batch. `reward`, `safety` and `helpfulness` are R_c, R_s and R_h in
    (0, 1), R_h NaN where it was not needed; `logit` is logit(R_c). `branch` is a position in `BRANCHES`, `kind` one in `kinds`.
    `is_whole` says of each prompt that none of its candidates failed.
    """

    prompts: int
    is_whole: NDArray[np.bool_]
    prompt: IntArray
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
    kinds: tuple[Kind, ...]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Answers:
        """The answers of `records`, which may be few but not none."""
        kinds = sorted({Kind.of(arm) for record in records for arm in record.arms})
        kind_of = {kind: position for position, kind in enumerate(kinds)}
        ranked = [(record, answer) for record in records for answer in record.ranked]
        rewards = [answer.reward for _, answer in ranked]
        counts = np.array([len(record.answers) for record in records])
        is_winner = np.zeros(len(ranked), dtype=bool)
        is_winner[np.cumsum(counts) - counts] = True
        return cls(
            prompts=len(records),
            is_whole=np.array([not record.failures for record in records]),
            prompt=np.repeat(np.arange(len(records)), counts),
            is_winner=is_winner,
            reward=np.array([reward.combined for reward in rewards]),
            logit=np.array([reward.combined_logit for reward in rewards]),
            safety=np.array([reward.safety for reward in rewards]),
            helpfulness=np.array([reward.helpfulness for reward in rewards], dtype=np.float64),
            is_gated=np.array([reward.is_gated for reward in rewards]),
            tokens=np.array([answer.tokens for _, answer in ranked]),
            branch=np.array([BRANCHES.index(reward.branch) for reward in rewards]),
            is_cut=np.array([answer.finish_reason == "length" for _, answer in ranked]),
            kind=np.array([kind_of[Kind.of(record.arms[answer.arm])] for record, answer in ranked]),
            kinds=tuple(kinds),
        )

    def stacks(self, kind: int | None = None) -> Iterator[tuple[IntArray, IntArray]]:
        """Prompts that have equally many answers, of one kind if `kind` is given: [m] positions of prompts, and [m, n] of their
        answers, best first. Every prompt that has any is in one stack."""
        rows = np.flatnonzero(np.ones(len(self.kind), dtype=bool) if kind is None else self.kind == kind)
        counts = np.bincount(self.prompt[rows], minlength=self.prompts)
        starts = np.cumsum(counts) - counts
        for count in np.unique(counts[counts > 0]):
            prompts = np.flatnonzero(counts == count)
            yield prompts, rows[starts[prompts][:, None] + np.arange(count)]

    def figures(self) -> Figures:
        """Everything that is averaged over prompts."""
        for prompts, rows in self.stacks():
            rewards = self.reward[rows]
            yield Column("winner"), prompts, rewards[:, 0]
            yield Column("mean"), prompts, rewards.mean(axis=1)
            yield Column("gain"), prompts, rewards[:, 0] - rewards.mean(axis=1)
            yield from self._curves(prompts, rewards, None)
            yield from _lengths(prompts, self.tokens[rows], self.logit[rows], rewards)
        for position, kind in enumerate(self.kinds):
            for prompts, rows in self.stacks(position):
                yield from self._curves(prompts, self.reward[rows], kind)

    def _curves(self, prompts: IntArray, rewards: FloatArray, kind: Kind | None) -> Figures:
        """Best and median of N, for N = 1, 2, 4, …; for all n that there are only where none failed, as n is K there."""
        total = rewards.shape[1]
        ascending = np.sort(rewards, axis=1)
        for size in sizes_up_to(total):
            takes = slice(None) if size & (size - 1) == 0 else self.is_whole[prompts]
            yield Column("best", size, kind), prompts[takes], (rewards @ best_weights(total, size))[takes]
            if kind is None:
                yield Column("median", size), prompts[takes], (ascending @ median_weights(total, size))[takes]


def _lengths(prompts: IntArray, tokens: IntArray, logits: FloatArray, rewards: FloatArray) -> Figures:
    """What length has to do with reward within prompts. Rewards are ranked as logits, which do not saturate."""
    total = tokens.shape[1]
    mean = tokens.mean(axis=1)
    yield Column("winner_tokens"), prompts, tokens[:, 0].astype(np.float64)
    yield Column("tokens"), prompts, mean
    yield Column("longer"), prompts, tokens[:, 0] / np.maximum(mean, 1) - 1
    if total < 3:
        return
    ranks = midranks(tokens)
    rho = rank_correlation(ranks, midranks(logits))
    yield Column("rho"), prompts, rho
    if total < FIFTHS:
        return
    above = rewards - rewards.mean(axis=1, keepdims=True)
    fifth = (FIFTHS * (ranks + 0.5) / total).astype(np.int64)
    for part in range(FIFTHS):
        inside = fifth == part
        counts = inside.sum(axis=1)
        has = (counts > 0) & np.isfinite(rho)
        yield Column("fifth", part), prompts[has], (above * inside).sum(axis=1)[has] / counts[has]
