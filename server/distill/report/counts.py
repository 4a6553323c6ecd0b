"""What is counted over all prompts and answers of a run, exactly and in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from winnow.models.statistics import FloatArray, IntArray
from winnow.models.types import Branch
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.report.answers import BRANCHES, Answers, Kind

BINS = 40
"""Bins of a histogram of a reward over (0, 1); the gate, 0.15, is the edge between the sixth and the seventh."""
MOST_NAMES = 200
"""How many categories, or reasons of failure, are told apart; the rest is counted together."""
OTHERS = "all others"
Key = TypeVar("Key")


@dataclass(slots=True)
class Side:
    """Counts over one side of the comparison: all candidates, or the winners.

    `histograms` holds, for R_s, R_h and R_c, how many answers fall into each of `BINS` equal bins of (0, 1); `lengths[n]` how many
    answers have n tokens.
    """

    answers: int = 0
    gated: int = 0
    cut: int = 0
    branches: Counter[Branch] = field(default_factory=Counter)
    histograms: dict[str, IntArray] = field(
        default_factory=lambda: {name: np.zeros(BINS, dtype=np.int64) for name in ("R_s", "R_h", "R_c")}
    )
    lengths: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    @property
    def tokens(self) -> int:
        """How many tokens these answers have in all."""
        return int(self.lengths @ np.arange(len(self.lengths)))

    def add(self, answers: Answers, chosen: NDArray[np.bool_]) -> None:
        """Count the chosen ones of a batch of answers."""
        self.answers += int(chosen.sum())
        self.gated += int(answers.is_gated[chosen].sum())
        self.cut += int(answers.is_cut[chosen].sum())
        counts = np.bincount(answers.branch[chosen], minlength=len(BRANCHES))
        self.branches.update(dict(zip(BRANCHES, counts.tolist(), strict=True)))
        for name, values in (("R_s", answers.safety), ("R_h", answers.helpfulness), ("R_c", answers.reward)):
            self.histograms[name] += _histogram(values[chosen])
        self.lengths = _sum(self.lengths, np.bincount(answers.tokens[chosen]))


@dataclass(slots=True)
class Group:
    """Sums over the prompts of a category; `winner` and `mean` of R_c of the winner and of the mean candidate."""

    prompts: int = 0
    candidates: int = 0
    winner: float = 0.0
    mean: float = 0.0
    gated: int = 0


@dataclass(slots=True)
class Tally:
    """All counts of a run. `asked` counts prompts by how many candidates they asked for, of each kind and (None) in all.

    `safe_passed_over` counts prompts whose winner is gated although another answer is not; `duplicates` answers that equal an
    earlier one of their prompt; `problems` input lines without answers, by kind and code.
    """

    prompts: int = 0
    safety_prompts: int = 0
    prompt_tokens: int = 0
    all_unsafe: int = 0
    safe_passed_over: int = 0
    duplicates: int = 0
    failed: int = 0
    candidates: Side = field(default_factory=Side)
    winners: Side = field(default_factory=Side)
    asked: Counter[tuple[Kind | None, int]] = field(default_factory=Counter)
    combiners: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    categories: dict[str | None, Group] = field(default_factory=dict)

    def add_problem(self, problem: Problem) -> None:
        """Count a line without answers."""
        self.problems[_bounded((problem.kind, problem.code), self.problems, (problem.kind, OTHERS))] += 1

    def add(self, records: Sequence[Record], answers: Answers) -> None:
        """Count a batch of prompts; `answers` is made of `records`."""
        self.candidates.add(answers, np.ones(len(answers.prompt), dtype=bool))
        self.winners.add(answers, answers.is_winner)
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        self.prompts += 1
        self.safety_prompts += record.is_safety
        self.prompt_tokens += record.prompt_tokens
        self.all_unsafe += record.all_unsafe
        self.safe_passed_over += record.winner.reward.is_gated and not record.all_unsafe
        self.duplicates += len(record.answers) - len({answer.text for answer in record.answers})
        self.failed += len(record.failures)
        self.combiners[record.combiner] += 1
        for failure in record.failures:
            self.failures[_bounded(failure.reason, self.failures, OTHERS)] += 1
        self._add_asked(record)
        name = _bounded(record.category, self.categories, OTHERS)
        group = self.categories.setdefault(name, Group())
        rewards = [answer.reward.combined for answer in record.answers]
        group.prompts += 1
        group.candidates += len(rewards)
        group.winner += record.winner.reward.combined
        group.mean += sum(rewards) / len(rewards)
        group.gated += record.winner.reward.is_gated

    def _add_asked(self, record: Record) -> None:
        asked: Counter[Kind | None] = Counter()
        for arm in record.arms:
            asked[Kind.of(arm)] += arm.candidates
        self.asked.update([(None, asked.total()), *asked.items()])

    def kinds(self) -> list[Kind]:
        """All kinds of arm, those that most prompts asked for first."""
        prompts: Counter[Kind] = Counter()
        for (kind, _), times in self.asked.items():
            if kind is not None:
                prompts[kind] += times
        return sorted(prompts, key=lambda kind: (-prompts[kind], kind))

    def most_asked(self, kind: Kind | None = None) -> int:
        """K: how many candidates, of one kind or in all, most prompts asked for; the larger one of two as common; 0 without any."""
        sizes = [(prompts, size) for (asked, size), prompts in self.asked.items() if asked == kind]
        return max(sizes, default=(0, 0))[1]


def _histogram(values: FloatArray) -> IntArray:
    """Counts in `BINS` equal bins of [0, 1], NaN left out."""
    places = (values[np.isfinite(values)] * BINS).astype(np.int64)
    return np.bincount(np.minimum(places, BINS - 1), minlength=BINS)


def _sum(left: IntArray, right: IntArray) -> IntArray:
    """Element by element; the shorter one is read as if zeros followed."""
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _bounded(name: Key, known: Collection[object], others: Key) -> Key:
    """`name`, or `others` where too many names are known already."""
    return name if name in known or len(known) < MOST_NAMES else others
