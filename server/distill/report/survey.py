"""One pass over a journal, then the estimates with their intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from winnow.models.statistics import Interval, bootstrap_means, sizes_up_to
from winnow.server.distill.journal import read
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.report.answers import FIFTHS, Answers, Column, Kind, Sample
from winnow.server.distill.report.counts import Counts
from winnow.server.distill.report.findings import Doubling, Examples, Findings, Length, Point

if TYPE_CHECKING:
    from winnow.models.statistics import FloatArray

BATCH_ANSWERS = 8192
SEED = 0
MOST_KINDS = 8
"""The number of kinds of arm that are compared, the most common."""


def gather(folder: Path, examples: int) -> Findings:
    """Read a run once and return its findings; memory grows only with the index of `journal.read`.

    Raises:
        RunError: there is no journal.
    """
    counts, sample, shown = Counts(), Sample(seed=SEED), Examples(examples)
    for batch in _batches(folder, counts):
        answers = Answers.of(batch)
        counts.add(batch, answers)
        sample.add(answers.prompts, answers.figures())
        for record in batch:
            shown.add(record)
    kinds = _Kinds.of(counts, sample)
    found = _intervals(_columns(counts, sample) | kinds.columns(counts, sample))
    return Findings(
        counts=counts,
        winner=found.get(Column("winner")),
        mean=found.get(Column("mean")),
        gain=found.get(Column("gain")),
        curve=_curve(found, None),
        kinds={kind: curve for kind in kinds.shown if (curve := _curve(found, kind))},
        are_paired=kinds.common is not None,
        doublings=tuple(Doubling(column.size, gain) for column, gain in found.items() if column.name == "doubling"),
        length=_length(found),
        examples=shown.chosen(),
        kept=sample.rows,
        is_partial=sample.is_partial,
    )


def _batches(folder: Path, counts: Counts) -> Iterator[list[Record]]:
    """Yield the records of a run in batches of about `BATCH_ANSWERS` answers, and count the problems between them."""
    batch: list[Record] = []
    answers = 0
    for entry in read(folder):
        if isinstance(entry, Problem):
            counts.add_problem(entry)
            continue
        batch.append(entry)
        answers += len(entry.selection.scored)
        if answers >= BATCH_ANSWERS:
            yield batch
            batch, answers = [], 0
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Kinds:
    """The kinds of arm that are compared, none if there is only one, and the rows of prompts that have all of them."""

    shown: list[Kind]
    common: NDArray[np.bool_] | None

    @classmethod
    def of(cls, counts: Counts, sample: Sample) -> Self:
        shown = sorted(counts.kinds()[:MOST_KINDS])
        if len(shown) < 2:
            return cls([], None)
        has_all = np.all([np.isfinite(sample.column(Column("best", 1, kind))) for kind in shown], axis=0)
        return cls(shown, has_all if has_all.any() else None)

    def columns(self, counts: Counts, sample: Sample) -> dict[Column, FloatArray]:
        wanted = [
            Column("best", size, kind) for kind in self.shown for size in sizes_up_to(counts.most_requested(kind))
        ]
        table = {column: sample.column(column) for column in wanted}
        if self.common is None:
            return table
        return {column: np.where(self.common, values, np.nan) for column, values in table.items()}


def _columns(counts: Counts, sample: Sample) -> dict[Column, FloatArray]:
    """Return the columns to average. At each N, all of best, median and mean are over the prompts with N answers."""
    names = ("winner", "gain", "rho", "winner_tokens", "tokens", "longer")
    wanted = [*map(Column, names), *(Column("fifth", part) for part in range(FIFTHS))]
    table = {column: sample.column(column) for column in wanted}
    mean = table[Column("mean")] = sample.column(Column("mean"))
    largest = counts.most_requested()
    for size in sizes_up_to(largest):
        best, median = Column("best", size), Column("median", size)
        table[best], table[median] = sample.column(best), sample.column(median)
        table[Column("mean", size)] = np.where(np.isfinite(table[best]), mean, np.nan)
        if 2 * size <= largest:
            table[Column("doubling", size)] = sample.column(Column("best", 2 * size)) - table[best]
    return table


def _intervals(table: dict[Column, FloatArray]) -> dict[Column, Interval]:
    """Return the mean and the interval of each column that holds a value."""
    found = zip(table, bootstrap_means(np.column_stack(list(table.values())), SEED), strict=True)
    return {column: interval for column, interval in found if interval is not None}


def _curve(found: dict[Column, Interval], kind: Kind | None) -> tuple[Point, ...]:
    return tuple(
        Point(column.size, best, found.get(Column("median", column.size)), found.get(Column("mean", column.size)))
        for column, best in found.items()
        if column.name == "best" and column.kind == kind
    )


def _length(found: dict[Column, Interval]) -> Length | None:
    if Column("longer") not in found:
        return None
    winner, mean, longer = (found[Column(name)] for name in ("winner_tokens", "tokens", "longer"))
    fifths = tuple(found[column] for part in range(FIFTHS) if (column := Column("fifth", part)) in found)
    return Length(found.get(Column("rho")), winner, mean, longer, fifths if len(fifths) == FIFTHS else ())
