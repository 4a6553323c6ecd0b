"""People's choices as training data: their rows, who reads them unmapped, and whom they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from tests.annotated import MANIFEST, NAMES, NOW, annotate_all, answered, batch, choice, desk, filled, row
from tests.server.distill.export.test_training import STEPS, check_learns, policy
from winnow.clients.schema import LeasedPair
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.errors import RunError
from winnow.server.distill.export import ExportOptions, Format
from winnow.server.rm.comparisons import Comparison, rows_of
from winnow.server.rm.margins import margin_of
from winnow.server.rm.rows import Labelled
from winnow.server.store.exporting import Download, export
from winnow.server.store.location import location
from winnow.server.store.opening import open_existing


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be the time of the answers, which expire."""
    monkeypatch.setattr("time.time", lambda: NOW + 1000.0)


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def exported(place: Path, *formats: Format, **options: Any) -> list[dict[str, Any]]:
    export(location(str(place)), formats, ExportOptions(**options), place.parent / "out")
    return lines(place.parent / "out" / "annotations.jsonl")


def right_is_better(pair: LeasedPair) -> dict[str, Any]:
    """Alphabetically later is better, the clearer the further the first letters are apart; "bad" is unsafe."""
    left, right = pair.left.text, pair.right.text
    step = min(abs(ord(left[0]) - ord(right[0])), 3)
    return {
        "choice": 5 + step if right > left else 4 - step,
        "left_safe": "bad" not in left,
        "right_safe": "bad" not in right,
        "flags": ["same"] if step == 0 else [],
    }


def test_a_row_says_what_was_chosen_and_how_clearly(tmp_path: Path) -> None:
    rows = [
        answered(1, ("alpha", 1, 1), ("delta", 1, 2), question="Which?", user="anna"),
        answered(2, ("beta", 1, 1), ("delta", 1, 2)),
        answered(3, ("charlie", 1, 1), ("delta", 1, 2)),
        answered(4, ("delta 1", 1, 1), ("delta 2", 1, 2)),
        answered(5, ("alpha", 1, 1), ("delta bad", 1, 2)),
    ]
    store = filled(str(tmp_path / "s.db"), *rows)
    made = batch(store, overlap=2)
    for name in ("anna", "bert"):
        assert len(list(annotate_all(desk(store, name), right_is_better))) == 5
    found = exported(tmp_path / "s.db", "annotations")
    assert len(found) == 8
    clear = [one for one in found if one["chosen_id"] == rows[0].id]
    assert [one["annotator"] for one in clear] == ["annotator-1", "annotator-2"]
    assert clear[0]["shown_left"] != clear[1]["shown_left"]
    told = clear[0]
    assert told["prompt"] == [{"role": "user", "content": "Which?"}]
    assert (told["chosen"][0]["content"], told["rejected"][0]["content"]) == ("delta", "alpha")
    assert (told["rating"], told["margin"], told["margin_large"], told["batch"]) == (3, 1.0, 3.0, made.id)
    assert (told["chosen_safe"], told["rejected_safe"], told["questioned"], told["revision"]) == (True, True, False, 1)
    assert {(one["rating"], round(one["margin"], 2)) for one in found} == {(3, 1.0), (2, 0.67), (1, 0.33), (0, 0.0)}
    assert [one["flags"] for one in found if one["rating"] == 0] == ["same", "same"]
    questioned = exported(tmp_path / "s.db", "annotations", with_questioned=True, margin="large")
    assert len(questioned) == 10
    assert {one["margin"] for one in questioned} == {0.0, 1.0, 2.0, 3.0}
    assert [one["chosen_safe"] for one in questioned if one["questioned"]] == [False, False]
    assert [file.path for file in store.forget(NAMES.of_user("anna"), NOW + 2000).exports] == [
        str((tmp_path / "out").resolve())
    ] * 2
    assert len(exported(tmp_path / "s.db", "annotations")) == 6
    store.close()


def test_reward_models_are_trained_on_it_unmapped(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), *map(row, range(20)))
    batch(store)
    list(annotate_all(desk(store), lambda pair: {"choice": 1 + len(pair.left.text) % 8, "right_safe": False}))
    store.close()
    for body in exported(tmp_path / "s.db", "annotations", with_questioned=True):
        comparison, *labels = rows_of(body, "safety")
        assert isinstance(comparison, Comparison)
        assert (comparison.better[0].text, comparison.worse[0].text) == (
            body["chosen"][0]["content"],
            body["rejected"][0]["content"],
        )
        assert [one.is_unsafe for one in labels if isinstance(one, Labelled)] == [
            not body["chosen_safe"],
            not body["rejected_safe"],
        ]
        assert rows_of(body, "helpfulness") == [comparison], "labels of safety say nothing of helpfulness"
        assert margin_of(body, "small") == pytest.approx(body["margin"])
        assert margin_of(body, "large") == body["margin_large"]


def test_it_stands_beside_other_formats_and_in_their_card(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), *map(row, range(6)))
    with pytest.raises(RunError, match="no annotations"):
        exported(tmp_path / "s.db", "annotations")
    batch(store)
    list(annotate_all(desk(store), lambda pair: {}))
    assert len(exported(tmp_path / "s.db", "sft", "annotations")) == 6
    card = (tmp_path / "out" / "README.md").read_text()
    assert "config_name: annotations" in card
    assert "config_name: sft" in card
    assert "## Fields: annotations" in card
    assert "No person rated" not in card
    exported(tmp_path / "s.db", "annotations")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "People saw two answers" in card
    assert MANIFEST["models"]["safety"]["sha256"] in card
    download = Download(open_existing(location(str(tmp_path / "s.db"))), "annotations")
    assert b"".join(download.chunks()) == (tmp_path / "out" / "annotations.jsonl").read_bytes()
    download.close()
    store.close()


def test_what_is_chosen_meanwhile_is_in_no_export_that_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow.server.store.annotations.PAGE", 1)
    store = filled(str(tmp_path / "s.db"), *(row(number, user=f"user-{number}") for number in range(6)))
    batch(store, pairs=3)
    place = desk(store)
    for _ in range(2):
        pair = place.lease().pair
        assert pair
        place.annotate(choice(pair, choice=2))
    download = Download(open_existing(location(str(tmp_path / "s.db"))), "annotations")
    noted = set(download.people)
    again = place.undo().pair
    assert again
    place.annotate(choice(again, choice=7))
    chunks = download.chunks()
    batch(store, policy="top")
    assert len(list(annotate_all(place, lambda pair: {}))) == 7
    rows = [orjson.loads(line) for line in b"".join(chunks).splitlines()]
    download.close()
    assert [one["revision"] for one in rows] == [1, 1]
    held = {store.get(one["chosen_id"], NOW + 1000) for one in rows}
    assert noted == {digest for answer in held if answer for digest in answer.people}
    assert len(exported(tmp_path / "s.db", "annotations")) == 9
    store.close()


def test_a_long_file_whose_flags_come_late_is_loaded(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), *map(row, range(8)))
    batch(store)
    flags = iter([[]] * 7 + [["same", "both_bad"]])
    list(annotate_all(desk(store), lambda pair: {"flags": next(flags)}))
    store.close()
    found = exported(tmp_path / "s.db", "annotations")
    assert sorted(one["flags"] for one in found) == [""] * 7 + ["both_bad,same"]
    for kind, options in (("json", {"chunksize": 1000}), ("parquet", {})):
        [file] = (tmp_path / "out").rglob("*.jsonl" if kind == "json" else "*.parquet")
        raw = load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / kind), **options)
        assert list(raw["flags"]) == [one["flags"] for one in found]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An export of a dozen choices."""
    store = filled(str(tmp_path / "s.db"), *map(row, range(12)))
    batch(store)
    list(annotate_all(desk(store), lambda pair: {"choice": 1 + len(pair.left.text) % 8}))
    store.close()
    exported(tmp_path / "s.db", "annotations")
    return tmp_path / "out"


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_trl_trains_on_it_unmapped(data: Path, tmp_path: Path, kind: str) -> None:
    raw = load_dataset(str(data), "annotations", split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(demo.weights("policy"))
    tokenizer.chat_template = Llama2Template().jinja
    if kind == "dpo":
        trainer = DPOTrainer(
            policy(),
            ref_model=policy(),
            args=DPOConfig(output_dir=str(tmp_path), **STEPS),
            train_dataset=raw,
            processing_class=tokenizer,
        )
    else:
        model = AutoModelForSequenceClassification.from_pretrained(demo.weights("helpfulness-rm"), dtype=torch.float32)
        arguments = RewardConfig(output_dir=str(tmp_path), **STEPS)
        trainer = RewardTrainer(model, args=arguments, train_dataset=raw, processing_class=tokenizer)
        margins = next(iter(trainer.get_train_dataloader()))["margin"].tolist()
        assert set(margins) <= set(torch.tensor([0, 1 / 3, 2 / 3, 1]).tolist())
    assert len(trainer.train_dataset) == len(raw) == 12
    check_learns(trainer)
