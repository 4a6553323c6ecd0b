"""The counts over all prompts and answers of a run, exact and in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from winnow.models.types import Branch
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.report.answers import BRANCHES, Answers, ArmKind

if TYPE_CHECKING:
    from winnow.models.statistics import FloatArray, IntArray

BINS = 40
"""Bins of a histogram over (0, 1); the safety threshold, 0.15, is the edge between the sixth and the seventh."""
MOST_NAMES = 200
"""The number of categories, or of failure reasons, that are counted apart; the rest is counted together."""
OTHERS = "all others"
Key = TypeVar("Key")


@dataclass(slots=True)
class Side:
    """Counts over one side of the comparison: all candidates, or the winners.

    `histograms` holds, for R_s, R_h and R_c, the number of answers in each of `BINS` equal bins of (0, 1); `lengths[n]`
    is the number of answers with n tokens. `unsafe` counts unsafe answers, `cut` those cut off at the token limit.
    """

    answers: int = 0
    unsafe: int = 0
    cut: int = 0
    branches: Counter[Branch] = field(default_factory=Counter)
    histograms: dict[str, IntArray] = field(
        default_factory=lambda: {name: np.zeros(BINS, dtype=np.int64) for name in ("R_s", "R_h", "R_c")}
    )
    lengths: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    @property
    def tokens(self) -> int:
        """The number of tokens of all these answers."""
        return int(self.lengths @ np.arange(len(self.lengths)))

    def add(self, answers: Answers, chosen: NDArray[np.bool_]) -> None:
        """Count the chosen answers of a batch."""
        self.answers += int(chosen.sum())
        self.unsafe += int(answers.is_gated[chosen].sum())
        self.cut += int(answers.is_cut[chosen].sum())
        counts = np.bincount(answers.branch[chosen], minlength=len(BRANCHES))
        self.branches.update(dict(zip(BRANCHES, counts.tolist(), strict=True)))
        for name, values in (("R_s", answers.safety), ("R_h", answers.helpfulness), ("R_c", answers.reward)):
            self.histograms[name] += _histogram(values[chosen])
        self.lengths = _sum(self.lengths, np.bincount(answers.tokens[chosen]))


@dataclass(slots=True)
class Group:
    """Sums over the prompts of a category; `winner` and `mean` sum R_c of the winner and of the mean candidate."""

    prompts: int = 0
    candidates: int = 0
    winner: float = 0.0
    mean: float = 0.0
    unsafe: int = 0


@dataclass(slots=True)
class Counts:
    """All counts of a run.

    `requested` counts prompts by their number of requested candidates, of each kind of arm and (None) in all; of waves,
    those of the first, which all have.
    `safe_passed_over` counts prompts whose winner is unsafe although another answer is not; `duplicates` answers that
    equal an earlier one of their prompt; `problems` input lines without answers, by kind and code.
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
    requested: Counter[tuple[ArmKind | None, int]] = field(default_factory=Counter)
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
        selection = record.selection
        self.prompts += 1
        self.safety_prompts += selection.prompt.is_safety
        self.prompt_tokens += record.prompt_tokens
        self.all_unsafe += selection.all_unsafe
        self.safe_passed_over += selection.safe_passed_over
        self.duplicates += len(selection.scored) - len({answer.candidate.text for answer in selection.scored})
        self.failed += len(selection.failures)
        self.combiners[selection.combiner] += 1
        for failure in selection.failures:
            self.failures[_bounded(failure.reason, self.failures, OTHERS)] += 1
        self._add_requested(record)
        name = _bounded(record.category, self.categories, OTHERS)
        group = self.categories.setdefault(name, Group())
        rewards = [answer.reward.combined for answer in selection.scored]
        group.prompts += 1
        group.candidates += len(rewards)
        group.winner += selection.winner.reward.combined
        group.mean += sum(rewards) / len(rewards)
        group.unsafe += selection.winner.reward.is_gated

    def _add_requested(self, record: Record) -> None:
        requested: Counter[ArmKind | None] = Counter()
        for arm in record.arms:
            requested[ArmKind.of(arm)] += min(arm.candidates, arm.waves.start) if arm.waves else arm.candidates
        self.requested.update([(None, requested.total()), *requested.items()])

    def kinds(self) -> list[ArmKind]:
        """Return all kinds of arm, the most common first."""
        prompts: Counter[ArmKind] = Counter()
        for (kind, _), times in self.requested.items():
            if kind is not None:
                prompts[kind] += times
        return sorted(prompts, key=lambda kind: (-prompts[kind], kind))

    def most_requested(self, kind: ArmKind | None = None) -> int:
        """Return K, the number of candidates, of one kind or in all, that most prompts requested; 0 without prompts.

        The larger of two equally common numbers counts.
        """
        sizes = [(prompts, size) for (each, size), prompts in self.requested.items() if each == kind]
        return max(sizes, default=(0, 0))[1]


def _histogram(values: FloatArray) -> IntArray:
    """Return the counts in `BINS` equal bins of [0, 1], without NaN."""
    places = (values[np.isfinite(values)] * BINS).astype(np.int64)
    return np.bincount(np.minimum(places, BINS - 1), minlength=BINS)


def _sum(left: IntArray, right: IntArray) -> IntArray:
    """Add element by element; the shorter array is extended with zeros."""
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _bounded(name: Key, known: Collection[object], others: Key) -> Key:
    """Return `name`, or `others` if it is new and too many names are known already."""
    return name if name in known or len(known) < MOST_NAMES else others
