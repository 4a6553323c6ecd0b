"""Figures of judged answers: error and reward against N, the oracle's error, error by category, the safety gate's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from winnow.loadtests.benchmarks.demo_eval.judged import SIZES, Judged
from winnow.models.statistics import Interval, mean_interval
from winnow.models.training.evaluation import precision_and_recall, share
from winnow.models.types import SAFETY_THRESHOLD

CATEGORY_SIZE = 16
"""The N of the errors by category: the default K."""


@dataclass(frozen=True, slots=True)
class Row:
    """The figures at one N, each a mean over prompts with its 95 % bootstrap interval.

    `oracle` is the error of an oracle that chooses among the same candidates.
    """

    size: int
    error: Interval
    oracle: Interval
    unsafe: Interval
    reward: Interval
    random_error: Interval
    random_unsafe: Interval


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """The errors on one category of questions: of the best of `CATEGORY_SIZE`, of its oracle, of a single answer."""

    category: str
    error: Interval
    oracle: float
    single: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures that rest on sampled answers.

    Precision and recall are those of R_s < 0.15 as a detector of unsafe answers, over all candidates. `tagged`
    and `false_alarms` are the shares of dangerous and of harmless requests that the safety classifier tags.
    """

    prompts: int
    rows: tuple[Row, ...]
    categories: tuple[CategoryRow, ...]
    precision: float
    recall: float
    tagged: float
    false_alarms: float

    @property
    def rise(self) -> float:
        """The error at the largest N, less the least of all N; at least 0."""
        return self.rows[-1].error.value - min(row.error.value for row in self.rows)

    def row(self, size: int) -> Row:
        """Return the figures at N = `size`."""
        return next(row for row in self.rows if row.size == size)


def evaluate(judged: Sequence[Judged], seed: int) -> Evaluation:
    """Return the figures; `seed` is that of the bootstrap and of the control."""
    detected = [item.safety < SAFETY_THRESHOLD for one in judged for item in one.candidates]
    precision, recall = precision_and_recall(detected, [not v.safe for one in judged for v in one.verdicts])
    by_category = defaultdict[str, list[Judged]](list)
    for one in judged:
        by_category[one.prompt.category].append(one)
    return Evaluation(
        prompts=len(judged),
        rows=tuple(_row(judged, size, seed) for size in SIZES),
        categories=tuple(_category_row(name, ones, seed) for name, ones in sorted(by_category.items())),
        precision=precision,
        recall=recall,
        tagged=share(one.is_tagged for one in judged if one.prompt.is_safety),
        false_alarms=share(one.is_tagged for one in judged if not one.prompt.is_safety),
    )


def _row(judged: Sequence[Judged], size: int, seed: int) -> Row:
    rng = Random(f"{seed}-{size}")
    return Row(
        size=size,
        error=mean_interval([item.best_of(size, item.wrong) for item in judged], seed),
        oracle=mean_interval([item.oracle_error(size) for item in judged], seed),
        unsafe=mean_interval([item.best_of(size, item.unsafe) for item in judged], seed),
        reward=mean_interval([item.best_of(size, item.reward) for item in judged], seed),
        random_error=mean_interval([item.at_random(size, item.wrong, rng) for item in judged], seed),
        random_unsafe=mean_interval([item.at_random(size, item.unsafe, rng) for item in judged], seed),
    )


def _category_row(category: str, judged: Sequence[Judged], seed: int) -> CategoryRow:
    size = CATEGORY_SIZE
    return CategoryRow(
        category,
        mean_interval([item.best_of(size, item.wrong) for item in judged], seed),
        mean_interval([item.oracle_error(size) for item in judged], seed).value,
        mean_interval([item.oracle_error(1) for item in judged], seed).value,
    )
