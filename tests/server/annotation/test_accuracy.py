"""Reward models against people, and people against each other: by hand-made annotations whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.annotated import MANIFEST, annotate_all, answered, batch, desk, filled
from winnow.clients.schema import LeasedPair, RewardModelReport
from winnow.models.statistics import wilson_interval
from winnow.server.annotation import accuracy, looking


def rule(pair: LeasedPair) -> dict[str, Any]:
    """The text says how good it is: "good 3" beats "poor" significantly; what has "bad" in it is unsafe."""
    left, right = pair.left.text, pair.right.text
    step = int(max(left, right, key=lambda text: text.startswith("good"))[5])
    choice = 4 - step if left.startswith("good") else 5 + step
    return {"choice": choice, "left_safe": "bad" not in left, "right_safe": "bad" not in right, "active_ms": 1500}


def test_accuracy_by_rating_with_baselines_and_the_gate(tmp_path: Path) -> None:
    rows = [
        # text, safety logit, helpfulness logit: the helpfulness model is right about the clear ones alone
        *(answered(number, ("good 3", 2, 3), ("poor", 2, 0)) for number in range(4)),
        *(answered(number, ("good 0", 2, 0), ("poor and long", 2, 1)) for number in range(4, 7)),
        answered(7, ("good 1", 2, 1), ("poor one", 2, 1)),  # a tie
        answered(8, ("good 2", 2, 1), ("poor bad", -3, 2)),  # rightly gated
        answered(9, ("good 2 !", -4, 1), ("poor bad", 2, 0)),  # the gate is wrong about both
    ]
    store = filled(str(tmp_path / "s.db"), *rows)
    batch(store, policy="random")
    assert len(list(annotate_all(desk(store), rule))) == 10
    report = accuracy.report(store)
    assert report.annotations == 10
    models = {model.kind: model for model in report.models}
    assert list(models) == ["combined", "helpfulness", "safety"]
    helpful = models["helpfulness"]
    assert (helpful.name, helpful.fingerprint, helpful.pairs) == ("helpfulness-rm", "3" * 64, 10)
    by_rating = {one.rating: (one.value, one.n) for one in helpful.by_rating}
    assert by_rating == {
        "significantly better": (1.0, 4),
        "better": (0.5, 2),
        "slightly better": (0.5, 1),
        "negligibly better": (0.0, 3),
    }
    expected = wilson_interval(5.5, 10)
    assert (helpful.accuracy.value, helpful.accuracy.low, helpful.accuracy.n) == (0.55, expected.low, 10)
    assert helpful.longer.value == pytest.approx((4 + 0 + 0 + 0 + 0.5) / 10)
    assert helpful.gate is None
    assert helpful.calibration
    assert [(one.low, one.chosen.value, one.chosen.n) for one in helpful.calibration] == [
        (0.5, 0.5, 1),
        (0.7, 0.2, 5),
        (0.9, 1.0, 4),
    ]
    gate = models["safety"].gate
    assert gate
    assert gate.precision
    assert gate.recall
    assert (gate.precision.value, gate.precision.n, gate.recall.value, gate.recall.n) == (0.5, 2, 0.5, 2)
    assert models["combined"].fingerprint == f"{'2' * 16}+{'3' * 16}"
    store.close()


def test_models_are_told_apart_and_pairs_across_two_count_for_neither(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), answered(1, ("good 1", 1, 2), ("poor", 1, 1), temperature=0.5))
    other = {**MANIFEST, "models": {**MANIFEST["models"], "helpfulness": {"id": "new-rm", "sha256": "8" * 64}}}
    store.add([answered(2, ("good 1", 1, 1), ("poor", 1, 2), temperature=0.9)], store.origin(other))
    batch(store, policy="top")
    store.add([answered(3, ("good 2", 1, 1), ("good 2 too", 1, 2), temperature=0.5)], 1)
    made = batch(store, policy="temperatures")
    assert made.pairs == 1
    list(annotate_all(desk(store), rule))

    def of(models: list[RewardModelReport], kind: str) -> list[tuple[str, float, int]]:
        return [(one.name, one.accuracy.value, one.accuracy.n) for one in models if one.kind == kind]

    report = accuracy.report(store)
    assert report.annotations == 3
    assert of(report.models, "helpfulness") == [("helpfulness-rm", 1.0, 1), ("new-rm", 0.0, 1)]
    assert [one[2] for one in of(report.models, "safety")] == [3]  # both origins have this one
    assert accuracy.report(store, made.id).annotations == 1
    store.close()


def test_a_model_is_another_one_after_a_calibration(tmp_path: Path) -> None:
    """Its logits are others by then: mixed, the gate would be neither's."""
    before = [answered(number, ("good 3", 1, 2), ("poor bad", 1, 1)) for number in range(3)]
    store = filled(str(tmp_path / "s.db"), *before)
    models, settings = MANIFEST["models"], MANIFEST["settings"]
    carded = {**models, "safety": {**models["safety"], "card": {"name": "card", "sha256": "9" * 64}}}
    others = [
        {**MANIFEST, "settings": {**settings, "safety_scale": 2.0}},
        {**MANIFEST, "settings": {**settings, "safety_bias": -4.0}},
        {**MANIFEST, "models": carded},
    ]
    for place, manifest in enumerate(others, start=1):
        row = answered(10 * place, ("good 3", -1, 2), ("poor bad", -3, 1))
        store.add([row], store.origin(manifest))
    batch(store)
    list(annotate_all(desk(store), rule))
    found = [(one.kind, one.origins, one.pairs) for one in accuracy.report(store).models]
    assert found == [
        *(("combined", [origin], pairs) for origin, pairs in ((1, 3), (2, 1), (3, 1), (4, 1))),
        ("helpfulness", [1, 2, 3, 4], 6),
        *(("safety", [origin], pairs) for origin, pairs in ((1, 3), (2, 1), (3, 1), (4, 1))),
    ]
    gates = [one.gate.recall for one in accuracy.report(store).models if one.gate]
    assert [recall and recall.value for recall in gates] == [0.0, 1.0, 1.0, 1.0]
    store.close()


def test_questioned_choices_are_left_out(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), answered(1, ("good 1 bad", 1, 2), ("poor", 1, 1)))
    batch(store)
    [(_, accepted)] = annotate_all(desk(store), rule)
    assert accepted.questioned
    assert accuracy.report(store).annotations == 0
    assert accuracy.report(store).models == []
    assert looking.report(store).annotators[0].annotations == 1
    store.close()


def test_agreement_by_batch_and_annotator(tmp_path: Path) -> None:
    rows = [answered(number, ("good 2", 1, 2), ("poor bad", 1, 1)) for number in range(12)]
    store = filled(str(tmp_path / "s.db"), *rows)
    first = batch(store, name="first", pairs=6, overlap=2)
    batch(store, name="second", overlap=3)
    for name in ("anna", "bert"):
        list(annotate_all(desk(store, name), rule))
    always_left = {"choice": 2, "left_safe": False, "right_safe": True}
    list(annotate_all(desk(store, "carl"), lambda pair: always_left))
    report = looking.report(store)
    second, one = report.batches
    assert (second.name, one.name, one.id, one.pairs, second.pairs) == ("second", "first", first.id, 6, 6)
    assert one.choice
    assert one.safety
    assert (one.choice.coefficient, one.choice.n, one.safety.coefficient, one.safety.n) == (1.0, 6, 1.0, 12)
    assert second.choice
    assert second.choice.coefficient < 0.8
    annotators = {each.name: each for each in report.annotators}
    assert (annotators["anna"].annotations, annotators["anna"].median_active_s) == (12, 1.5)
    assert (annotators["carl"].annotations, annotators["carl"].median_active_s) == (6, None)
    assert annotators["carl"].left_share
    assert annotators["carl"].left_share.value == 1.0
    theirs, ours = annotators["carl"].agreement.choice, annotators["anna"].agreement.choice
    assert theirs
    assert ours
    assert theirs.coefficient < ours.coefficient
    assert (report.position.left, report.position.right) == (12 + 6, 12)  # mirrored: half of the others' are left
    alone = looking.report(store, first.id)
    assert [each.name for each in alone.batches] == ["first"]
    assert (alone.all.pairs, len(alone.annotators)) == (6, 2)
    store.close()


def test_nothing_is_known_of_no_annotations(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"))
    report = looking.report(store)
    assert (report.batches, report.annotators, report.all.choice, report.position.value) == ([], [], None, None)
    assert accuracy.report(store).models == []
    store.close()
