"""One pass over a journal, then the estimates with their intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from winnow.models.gains import GainTable
from winnow.models.statistics import Interval, bootstrap_means, sizes_up_to
from winnow.server.distill.journal import read
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.report import waves
from winnow.server.distill.report.answers import FIFTHS, Answers, ArmKind, Figure, Sample
from winnow.server.distill.report.counts import Counts
from winnow.server.distill.report.findings import Doubling, Examples, Findings, Length, Point

if TYPE_CHECKING:
    from winnow.models.statistics import FloatArray

BATCH_ANSWERS = 8192
SEED = 0
MOST_KINDS = 8
"""The number of kinds of arm that are compared, the most common."""


def gather(folder: Path, examples: int, table: GainTable | None = None) -> Findings:
    """Read a run once and return its findings; memory grows only with the index of `journal.read`.

    `table` is what the run tells of the gain of further candidates.

    Raises:
        RunError: there is no journal.
    """
    counts, sample, shown, drawn = Counts(), Sample(seed=SEED), Examples(examples), waves.DrawnCounts()
    for batch in _batches(folder, counts):
        answers = Answers.of(batch)
        counts.add(batch, answers)
        sample.add(answers.prompts, chain(answers.figures(), waves.figures(answers, batch, table)))
        for record in batch:
            drawn.add(record, table)
            shown.add(record)
    kinds = _Kinds.of(counts, sample)
    wave_figures = {figure: sample.values(figure) for figure in sample.figures if figure.name in waves.NAMES}
    found = _intervals(_figures(counts, sample) | kinds.figures(counts, sample) | wave_figures)
    return Findings(
        counts=counts,
        winner=found.get(Figure("winner")),
        mean=found.get(Figure("mean")),
        gain=found.get(Figure("gain")),
        curve=_curve(found, None),
        kinds={kind: curve for kind in kinds.shown if (curve := _curve(found, kind))},
        are_paired=kinds.common is not None,
        doublings=tuple(Doubling(figure.size, gain) for figure, gain in found.items() if figure.name == "doubling"),
        length=_length(found),
        examples=shown.chosen(),
        kept=sample.rows,
        is_partial=sample.is_partial,
        waves=waves.summed_up(found, drawn),
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

    shown: list[ArmKind]
    common: NDArray[np.bool_] | None

    @classmethod
    def of(cls, counts: Counts, sample: Sample) -> Self:
        shown = sorted(counts.kinds()[:MOST_KINDS])
        if len(shown) < 2:
            return cls([], None)
        has_all = np.all([np.isfinite(sample.values(Figure("best", 1, kind))) for kind in shown], axis=0)
        return cls(shown, has_all if has_all.any() else None)

    def figures(self, counts: Counts, sample: Sample) -> dict[Figure, FloatArray]:
        wanted = [
            Figure("best", size, kind) for kind in self.shown for size in sizes_up_to(counts.most_requested(kind))
        ]
        table = {figure: sample.values(figure) for figure in wanted}
        if self.common is None:
            return table
        return {figure: np.where(self.common, values, np.nan) for figure, values in table.items()}


def _figures(counts: Counts, sample: Sample) -> dict[Figure, FloatArray]:
    """Return the figures to average. At each N, all of best, median and mean are over the prompts with N answers."""
    names = ("winner", "gain", "rho", "winner_tokens", "tokens", "longer")
    wanted = [*map(Figure, names), *(Figure("fifth", part) for part in range(FIFTHS))]
    table = {figure: sample.values(figure) for figure in wanted}
    mean = table[Figure("mean")] = sample.values(Figure("mean"))
    largest = counts.most_requested()
    for size in sizes_up_to(largest):
        best, median = Figure("best", size), Figure("median", size)
        table[best], table[median] = sample.values(best), sample.values(median)
        table[Figure("mean", size)] = np.where(np.isfinite(table[best]), mean, np.nan)
        if 2 * size <= largest:
            table[Figure("doubling", size)] = sample.values(Figure("best", 2 * size)) - table[best]
    return table


def _intervals(table: dict[Figure, FloatArray]) -> dict[Figure, Interval]:
    """Return the mean and the interval of each figure that holds a value."""
    found = zip(table, bootstrap_means(np.column_stack(list(table.values())), SEED), strict=True)
    return {figure: interval for figure, interval in found if interval is not None}


def _curve(found: dict[Figure, Interval], kind: ArmKind | None) -> tuple[Point, ...]:
    return tuple(
        Point(figure.size, best, found.get(Figure("median", figure.size)), found.get(Figure("mean", figure.size)))
        for figure, best in found.items()
        if figure.name == "best" and figure.kind == kind
    )


def _length(found: dict[Figure, Interval]) -> Length | None:
    if Figure("longer") not in found:
        return None
    winner, mean, longer = (found[Figure(name)] for name in ("winner_tokens", "tokens", "longer"))
    fifths = tuple(found[figure] for part in range(FIFTHS) if (figure := Figure("fifth", part)) in found)
    return Length(found.get(Figure("rho")), winner, mean, longer, fifths if len(fifths) == FIFTHS else ())
