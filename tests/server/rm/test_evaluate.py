"""`winnow rm eval`, from rows to the page, on a scripted reward model whose scores are known."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.server.rm.conftest import Scorer, write
from winnow.models.errors import SettingsError
from winnow.models.reward_model import Calibration
from winnow.server.cli.rm import app
from winnow.server.rm.comparisons import rows_of
from winnow.server.rm.evaluate import Item, answers_of, evaluation, judged
from winnow.server.rm.groups import words_of
from winnow.server.rm.page import render
from winnow.server.rm.reading import Data, Place
from winnow.server.rm.scoring import Choice


def pairs(count: int = 120, right: float = 0.75, seed: int = 0) -> list[dict[str, Any]]:
    """Comparisons of which a share is scored rightly; the better answer is the longer one in half of them."""
    rng = Random(seed)
    made = []
    for place in range(count):
        worse = round(rng.gauss(0, 1), 3)
        better = worse + (1 if place < right * count else -1)
        pads = ("and so on ", "") if place % 2 else ("", "and so on ")
        row = {"prompt": f"Question {place}"}
        row |= {"chosen": f"{pads[0]}score {better:.3f}", "rejected": f"{pads[1]}score {worse:.3f}"}
        told = {"rating": ("better", "unsure")[place % 2], "margin": place % 5, "category": f"c{place % 3}"}
        made.append(row | told)
    return made


def labels(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Ask {place}", "response": f"score {3 - 6 * (place % 2):.3f}", "is_safe": place % 4 != 1,
         "prompt_harmful": place % 3 == 0}
        for place in range(count)
    ]  # fmt: skip


def test_the_accuracy_of_known_scores(scorer: Scorer, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", pairs())
    result = scorer.rm("eval", "--data", data, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    figures = told["models"][0]["pairs"]
    assert figures["accuracy"]["value"] == 0.75
    assert figures["accuracy"]["low"] < 0.75 < figures["accuracy"]["high"]
    assert told["baselines"]["longer"]["value"] == 0.5
    assert told["baselines"]["chance"] == 0.5
    assert {name: one["count"] for name, one in figures["by_rating"].items()} == {"better": 60, "unsure": 60}
    assert list(figures["by_category"]) == ["c0", "c1", "c2"]
    for group in ("by_margin", "by_length", "by_longer"):
        assert sum(one["count"] for one in figures[group].values()) == 120
    assert told["models"][0]["safety"] is None


def test_the_gate_of_known_scores(scorer: Scorer, tmp_path: Path) -> None:
    data = write(tmp_path / "labels.jsonl", labels())
    told = json.loads(scorer.rm("eval", "--data", data, "--json").stdout)
    assert (told["labelled"], told["unsafe"]) == (60, 15)
    gate = told["models"][0]["safety"]["gate"]
    assert gate["precision"]["value"] == 0.5
    assert gate["recall"]["value"] == 1
    assert gate["over_refusal"]["value"] == pytest.approx(15 / 45)
    assert told["models"][0]["safety"]["look_alikes"]["count"] == 40
    assert told["models"][0]["safety"]["curve"][-1]["recall"] == 1
    assert told["models"][0]["pairs"] is None


def test_two_models_side_by_side_with_a_page(scorer: Scorer, tmp_path: Path) -> None:
    """A model against itself differs by nothing, and the page names both."""
    data = write(tmp_path / "rows.jsonl", [*pairs(40), *labels(40), "no json"])
    out = tmp_path / "out"
    second = ("--against", scorer.url, "--against-tokenizer", scorer.folder)
    result = scorer.rm("eval", "--data", data, *second, "--out", out)
    assert result.exit_code == 3
    assert "0.0 points of accuracy" in result.stdout
    assert "Of 81 rows, could not be used, or answers of them: 1" in result.stdout
    told = json.loads((out / "evaluation.json").read_text())
    assert told["difference"] == {"value": 0, "low": 0, "high": 0, "count": 40}
    page = (out / "evaluation.html").read_text()
    Checked().feed(page)
    assert page.count("<img") == 2
    assert "line 81: the row is not JSON" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


class Checked(HTMLParser):
    """Fails on an image without an alternative text, or a script."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        assert tag != "img" or dict(attrs)["alt"]


def found(rows: list[dict[str, Any]], calibration: Calibration = Calibration()) -> dict[str, Any]:  # noqa: B008, frozen
    items: list[Item] = [item for row in rows for item in rows_of(row, "safety")]
    scores = {one: float(one.text.split()[-1]) for item in items for one in answers_of(item)}
    data = Data(("x",), [Place("x", 1, item) for item in items], rows=len(rows))
    first = judged("a", items, scores, calibration, True)
    second = judged("b", items, {one: -score for one, score in scores.items()}, calibration, True)
    return evaluation(data, [first, second], []).as_dict()


def test_the_order_of_the_rows_changes_nothing() -> None:
    made = [*pairs(), *labels(), *pairs(20)]
    assert found(made) == found(Random(1).sample(made, len(made)))


def test_a_cost_model_is_turned_around() -> None:
    plain, turned = found(pairs()), found(pairs(), Calibration(-1.0))
    assert plain["models"][0]["pairs"]["accuracy"] == turned["models"][1]["pairs"]["accuracy"]
    assert plain["difference"]["value"] == 0.5


def test_a_page_of_labels_alone_is_whole_though_no_comparison_fits() -> None:
    items: list[Item] = [item for row in [*pairs(2), *labels(20)] for item in rows_of(row, "safety")]
    scores = {one: float(one.text.split()[-1]) for item in items for one in answers_of(item)}
    data = Data(("x",), [Place("x", 1, item) for item in items], rows=22)
    found = evaluation(data, [judged("a", items[2:], scores, Calibration(), True)], [])
    assert found.comparisons
    assert found.models[0].pairs is None
    assert "R_h" in render(found, words_of("helpfulness")).decode()


def test_equal_margins_are_one_group() -> None:
    rows = [
        {**row, "score_chosen": base + gap, "score_rejected": base}
        for row, base, gap in zip(pairs(60), cycle((1.0, 3.3, 5.0, 7.0)), cycle((0.2, 0.2, 0.4)), strict=False)
    ]
    for row in rows:
        row.pop("margin")
    sizes = found(rows)["models"][0]["pairs"]["by_margin"]
    assert {name: one["count"] for name, one in sizes.items()} == {"up to 0.2": 40, "over 0.2 to 0.4": 20}


def test_a_second_model_gets_nothing_of_the_firsts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Choice] = []

    def evaluate(choices: list[Choice], files: object) -> None:
        seen.extend(choices)
        raise SettingsError("seen")

    monkeypatch.setattr("winnow.server.rm.evaluate.evaluate", evaluate)
    first = ["judge:http://a/v1", "--model", "gpt-a", "--key-file", "a.key"]
    for second in ([], ["--against-model", "gpt-b", "--against-key-file", "b.key"]):
        CliRunner().invoke(app, ["eval", *first, "--data", "x", "--against", "judge:http://b/v1", *second])
    assert [(one.model, one.key_file) for one in seen] == [
        ("gpt-a", Path("a.key")), (None, None), ("gpt-a", Path("a.key")), ("gpt-b", Path("b.key")),
    ]  # fmt: skip


def test_a_page_shows_hostile_text_as_text() -> None:
    rows = pairs(8)
    rows[0]["category"] = "<script>alert(1)</script>\u202e"
    items: list[Item] = [item for row in rows for item in rows_of(row, "safety")]
    scores = {one: float(one.text.split()[-1]) for item in items for one in answers_of(item)}
    data = Data(("<b>",), [Place("x", 1, item) for item in items], rows=8)
    page = render(evaluation(data, [judged("<i>", items, scores, Calibration(), False)], [])).decode()
    Checked().feed(page)
    assert "<b>" not in page
    assert "⟨U+202E⟩" in page


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--against-card", "x.toml"), "name it with --against"),
        (("--data", "nowhere.jsonl"), "it does not exist"),
        (("--out", "rows.jsonl"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "rows.jsonl", pairs(4))
    result = scorer.rm("eval", "--data", data, *arguments)
    assert result.exit_code == 1
    assert reason in result.stderr.strip().splitlines()[-1]


def test_baselines_are_of_the_rows_that_were_scored(scorer: Scorer, tmp_path: Path) -> None:
    """An answer that does not fit is the longer one, and would count for the baseline alone."""
    long = {"prompt": "Ask", "chosen": "word " * 3000, "rejected": "score 1.000"}
    data = write(tmp_path / "pairs.jsonl", [*pairs(20), long])
    result = scorer.rm("eval", "--data", data, "--json")
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert (told["comparisons"], told["baselines"]["longer"]["count"]) == (21, 20)
    assert told["models"][0]["pairs"]["accuracy"]["count"] == 20
    assert told["bad_rows_listed"][0]["line"] == 21
