"""The agreement of annotators, by batch and annotator, and their preference for a side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from winnow.clients.schema import Agreement, AgreementReport, Agreements, AnnotatorReport, BatchAgreement, Position
from winnow.models.agreement import Weight, agreement, identity, quadratic
from winnow.models.statistics import median, wilson_interval
from winnow.server.annotation.batches import batch_by_id, estimate
from winnow.server.store.annotation_rows import Judged
from winnow.server.store.store import Store

CHOICES = 8


def report(store: Store, batch: str | None = None) -> AgreementReport:
    """Return the report on all annotations, or on those of one batch.

    Raises:
        NotStored: there is no such batch.
    """
    number = None if batch is None else batch_by_id(store, batch).number
    judged = list(store.annotations.judged(number))
    of_batch: dict[int, list[Judged]] = {}
    for row in judged:
        of_batch.setdefault(row.batch, []).append(row)
    return AgreementReport(
        batches=[
            BatchAgreement(id=one.id, name=one.name, **_agreements(of_batch.get(one.number, [])))
            for one in store.batches.all()
            if number in (None, one.number)
        ],
        annotators=_annotators(store.annotations.names(), judged, store.annotations.skips(number)),
        all=Agreements(**_agreements(judged)),
        position=position(judged),
    )


def position(judged: Sequence[Judged]) -> Position:
    """Return how often either side was chosen."""
    left = sum(row.shown <= CHOICES // 2 for row in judged)
    share = estimate(wilson_interval(left, len(judged)))
    ends = share.model_dump(exclude={"n"}) if share else dict.fromkeys(("value", "low", "high"))
    return Position(left=left, right=len(judged) - left, **ends)


def _annotators(names: Mapping[int, str], judged: Iterable[Judged], skips: Mapping[int, int]) -> list[AnnotatorReport]:
    of_annotator: dict[int, list[Judged]] = {}
    of_pair: dict[int, list[Judged]] = {}
    for row in judged:
        of_annotator.setdefault(row.annotator, []).append(row)
        of_pair.setdefault(row.pair, []).append(row)
    found = []
    for number, name in names.items():
        own = of_annotator.get(number, [])
        if not own and not skips.get(number):
            continue
        times = [row.active_ms / 1000 for row in own if row.active_ms]
        found.append(
            AnnotatorReport(
                name=name,
                annotations=len(own),
                skipped=skips.get(number, 0),
                median_active_s=median(times) if times else None,
                left_share=estimate(wilson_interval(sum(row.shown <= CHOICES // 2 for row in own), len(own))),
                agreement=Agreements(**_agreements([one for row in own for one in of_pair[row.pair]])),
            )
        )
    return found


def _agreements(judged: Iterable[Judged]) -> dict[str, Any]:
    choices: dict[int, list[int]] = {}
    safety: dict[tuple[int, str], list[int]] = {}
    for row in judged:
        choices.setdefault(row.pair, []).append(row.choice - 1)
        safety.setdefault((row.pair, "a"), []).append(int(row.a_safe))
        safety.setdefault((row.pair, "b"), []).append(int(row.b_safe))
    return {
        "pairs": sum(len(ratings) > 1 for ratings in choices.values()),
        "choice": _shown(choices.values(), CHOICES, quadratic),
        "safety": _shown(safety.values(), 2, identity),
    }


def _shown(subjects: Iterable[Sequence[int]], categories: int, weight: Weight) -> Agreement | None:
    found = agreement(subjects, categories, weight)
    if found is None:
        return None
    return Agreement(coefficient=found.coefficient, low=found.low, high=found.high, n=found.subjects)
