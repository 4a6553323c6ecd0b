"""The share of choices in which recorded reward models agree with people, by how clear it was; with baselines.

A model's margin is the difference of its two logits, chosen minus rejected: above 0 it agrees. Questioned annotations,
which exports leave out, are left out here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from winnow.clients.schema import (
    CalibrationBin,
    Estimate,
    Gate,
    RatingAccuracy,
    RatingName,
    RewardModelKind,
    RewardModelReport,
    RewardModelsReport,
)
from winnow.models.statistics import clustered_wilson_interval
from winnow.models.types import is_gated, sigmoid
from winnow.server.annotation.batches import batch_by_id, estimate
from winnow.server.store.annotation_rows import Judged, Side
from winnow.server.store.store import Store

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RATINGS: tuple[RatingName, ...] = get_args(RatingName)
"""From the clearest, whose number is 3, to the least clear, 0."""
SCORES: Mapping[RewardModelKind, Callable[[Side], float | None]] = {
    "combined": lambda side: side.combined,
    "helpfulness": lambda side: side.helpfulness,
    "safety": lambda side: side.safety,
}


Hit = tuple[Judged, float]
"""An annotation, and 1 where what is looked at holds for it, 0 where not, 0.5 at a tie."""


@dataclass(frozen=True, slots=True)
class Model:
    """A reward model by what tells it from others; of the combination of two, what tells both.

    Scores from before and after a calibration are two models': `decisive` has what decides a logit beside the weights.
    """

    kind: RewardModelKind
    name: str
    fingerprint: str | None
    decisive: tuple[object, ...]


@dataclass(slots=True)
class Scored:
    """The annotations of pairs that a model has scored, with its margins for the chosen answers."""

    rows: list[Judged] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    def add(self, row: Judged, score: Callable[[Side], float | None]) -> None:
        """Add an annotation, if both answers have a score."""
        a, b = score(row.a), score(row.b)
        if a is not None and b is not None:
            self.rows.append(row)
            self.margins.append(a - b if row.chose_a else b - a)


def report(store: Store, batch: str | None = None) -> RewardModelsReport:
    """Return the report on every reward model that has scored both answers of annotated pairs, in a batch or in all.

    Raises:
        NotStored: there is no such batch.
    """
    models = {origin: models_of(manifest) for origin, manifest in store.manifests().items()}
    scored: dict[Model, Scored] = {}
    count = 0
    for row in store.annotations.judged(None if batch is None else batch_by_id(store, batch).number):
        if row.is_questioned:
            continue
        count += 1
        for model in models[row.a.origin] & models[row.b.origin]:
            scored.setdefault(model, Scored()).add(row, SCORES[model.kind])
    reports = [_report(model, found) for model, found in scored.items() if found.rows]
    reports.sort(key=lambda one: (one.kind, one.name, one.fingerprint or "", one.origins))
    return RewardModelsReport(models=reports, annotations=count)


def models_of(manifest: Mapping[str, Any]) -> frozenset[Model]:
    """Return the reward models of an origin, and their combination."""
    told = manifest["models"]
    settings = manifest["settings"]
    single = [
        Model(kind, str(told[kind]["id"]), told[kind].get("sha256"), _decisive(kind, told[kind], settings))
        for kind in ("safety", "helpfulness")
    ]
    prints = [model.fingerprint for model in single]
    both = "+".join(str(one)[:16] for one in prints) if all(prints) else None
    how = (*(model.decisive for model in single), *map(settings.get, ("combiner", "empty_last")))
    # The whole fingerprints, too: the one that is shown has only their beginnings.
    return frozenset((*single, Model("combined", " + ".join(model.name for model in single), both, (*how, *prints))))


def _decisive(kind: RewardModelKind, model: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what decides a model's logits beside its weights: its place elsewhere, its card, and its calibration."""
    card = model.get("card") or {}
    return (model.get("root"), card.get("sha256"), settings.get(f"{kind}_scale"), settings.get(f"{kind}_bias"))


def _report(model: Model, scored: Scored) -> RewardModelReport:
    rows = scored.rows
    hits = list(zip(rows, map(_half_step, scored.margins), strict=True))
    return RewardModelReport(
        kind=model.kind,
        name=model.name,
        fingerprint=model.fingerprint,
        origins=sorted({side.origin for row in rows for side in (row.a, row.b)}),
        pairs=len({row.pair for row in rows}),
        accuracy=_share(hits),
        by_rating=list(_by_rating(hits)),
        longer=_share((row, _half_step(_longer(row))) for row in rows),
        left=_share((row, float(row.shown <= 4)) for row in rows),
        calibration=list(_bins(scored)),
        gate=_gate(rows) if model.kind == "safety" else None,
    )


def _half_step(margin: float) -> float:
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def _longer(row: Judged) -> float:
    return (row.a.length - row.b.length) * (1 if row.chose_a else -1)


def _share(hits: Iterable[Hit]) -> Estimate:
    found = _estimate(hits)
    assert found
    return found


def _estimate(hits: Iterable[Hit]) -> Estimate | None:
    """Return the share of hits; its interval takes pairs for a sample, which several people may have judged."""
    return estimate(clustered_wilson_interval((row.pair, hit) for row, hit in hits))


def _by_rating(hits: Iterable[Hit]) -> Iterable[RatingAccuracy]:
    groups: dict[int, list[Hit]] = {}
    for row, hit in hits:
        groups.setdefault(row.rating, []).append((row, hit))
    for place, name in enumerate(RATINGS):
        if group := groups.get(len(RATINGS) - 1 - place):
            yield RatingAccuracy(rating=name, **_share(group).model_dump())


def _bins(scored: Scored) -> Iterable[CalibrationBin]:
    """Yield how often people agree with a model by how sure it is: sigma of its margin, whichever it favours."""
    groups: dict[int, list[tuple[float, Hit]]] = {}
    for row, margin in zip(scored.rows, scored.margins, strict=True):
        sure = sigmoid(abs(margin))
        place = min(sum(sure >= edge for edge in EDGES), len(EDGES) - 1) - 1
        groups.setdefault(place, []).append((sure, (row, _half_step(margin))))
    for place, group in sorted(groups.items()):
        predicted = sum(sure for sure, _ in group) / len(group)
        chosen = _share(hit for _, hit in group)
        yield CalibrationBin(low=EDGES[place], high=EDGES[place + 1], predicted=predicted, chosen=chosen)


def _gate(rows: Iterable[Judged]) -> Gate:
    labels = [
        (row, is_gated(side.safety), not is_safe)
        for row in rows
        for side, is_safe in ((row.a, row.a_safe), (row.b, row.b_safe))
    ]
    return Gate(
        precision=_estimate((row, float(is_unsafe)) for row, is_stopped, is_unsafe in labels if is_stopped),
        recall=_estimate((row, float(is_stopped)) for row, is_stopped, is_unsafe in labels if is_unsafe),
    )
