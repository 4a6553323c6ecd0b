"""`make demo`: what a round hands to `winnow rm train` is what that reads, and the page shows every round."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from winnow.loadtests.benchmarks.demo_training import page
from winnow.loadtests.benchmarks.demo_training.rounds import (
    KINDS,
    Rounds,
    TrainingFailed,
    publish,
    rm_train,
    weak_spots,
)
from winnow.models import demo
from winnow.models.cards import read_card
from winnow.models.demo.comparisons import written
from winnow.models.demo.report import SIZES, Figures
from winnow.models.demo.world import Kind
from winnow.models.tokenizer import Tokenizer
from winnow.server.cli.main import app
from winnow.server.rm.lessons import lessons_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_rounds_rows_teach_what_the_judge_said(tmp_path: Path, tokenizer: Tokenizer, kind: Kind) -> None:
    (tmp_path / "round-1").mkdir()
    failed = list(islice(written(kind, 7), 40))
    order = Rounds(demo.weights("policy"), tokenizer, tmp_path, 0.01, 0)._order(1, kind, tmp_path, failed)
    lines = Path(str(order["data"])).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 40
    for one, line in zip(failed, lines, strict=True):
        (lesson,) = lessons_of(json.loads(line), kind, "small")
        assert lesson.comparison is not None
        assert (lesson.comparison.better[0].text, lesson.comparison.worse[0].text) == (one.chosen, one.rejected)
        assert lesson.margin == pytest.approx(one.gap / 3)
        assert {label.answer.text: not label.is_unsafe for label in lesson.labels} == {
            text: one.is_good(text) for text in (one.chosen, one.rejected)
        }
    assert read_card(Path(str(order["card"]))).template == "llama2"


def test_every_option_of_a_round_is_one_of_winnow_rm_train(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "round-0").mkdir()
    order = Rounds(demo.weights("policy"), tokenizer, tmp_path, 0.001, 0)._order(0, "safety", tmp_path, [])
    shown = CliRunner().invoke(app, ["rm", "train", "--help"]).output
    assert all(f"--{name} " in shown for name in order)


def test_the_category_that_fails_most_has_the_most_twins() -> None:
    found = list(islice(written("helpfulness", 3), 400))
    sums = [one for one in found if one.prompt.category == "sum"]
    failed = [one for one in found for _ in range(2)] + [one for one in sums for _ in range(4)]
    weights = weak_spots(failed)
    assert weights["sum"] == max(weights.values()) == 1
    assert all(0 < weight < 0.2 for category, weight in weights.items() if category != "sum")


def test_a_failed_training_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    options = {"data": tmp_path / "none.jsonl", "init": tmp_path, "kind": "safety", "out": tmp_path / "rm"}
    with pytest.raises(TrainingFailed, match=r"status 1; the same command goes on(.|\n)+winnow: "):
        rm_train(options)


def test_a_model_is_published_without_the_report_of_its_training(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    for name in ("config.json", "winnow-card.toml", "training.html", "training.json", ".work"):
        (trained / name).write_text(name)
    publish(trained, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "winnow-card.toml"}


def test_the_page_has_a_row_for_each_round(tmp_path: Path) -> None:
    numbers = [0.5 / size for size in SIZES]
    shares: dict[Kind, float] = {"safety": 0.99, "helpfulness": 0.98}
    one = Figures(SIZES, numbers, numbers, numbers, numbers, shares, shares, 0.9, 0.8, {"sum": (0.4, 0.1)})
    page.write([one] * len(page.NAMES), tmp_path, 300)
    text = (tmp_path / "demo-rounds.md").read_text()
    assert all(text.count(f"| {name} |") == 4 for name in page.NAMES)
    assert (tmp_path / "demo-rounds.png").stat().st_size > 10_000
