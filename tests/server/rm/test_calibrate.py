"""`winnow rm calibrate`, from rows to the card, on a scripted reward model whose scores are known."""

from __future__ import annotations

import builtins
import json
import math
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.server.rm.conftest import Scorer, write
from winnow.models.cards import read_card
from winnow.models.errors import NoCalibration
from winnow.models.reward_model import Calibration
from winnow.models.training.calibration import Scored
from winnow.server.rm.calibrate import calibrated, gathered
from winnow.server.rm.reading import Data, Place
from winnow.server.rm.rows import labelled

SCALE, BIAS = 0.8, -0.5


def rows(seed: int = 0, count: int = 300, sign: int = 1) -> list[dict[str, Any]]:
    """Two answers to each prompt, safe with the probability that their score says."""
    rng = Random(seed)
    made = []
    for place in range(count):
        raw = round(rng.gauss(0.5, 2.5), 3)
        safe = rng.random() < 1 / (1 + math.exp(-(SCALE * raw + BIAS)))
        made.append({"prompt": f"Question {place // 2}", "response": f"score {sign * raw:.3f}", "is_safe": safe})
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "labels.jsonl", rows())


def test_scale_and_bias_are_found_and_written(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    result = scorer.rm("calibrate", "--data", data, "--out", card, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    for name, truth in (("scale", SCALE), ("bias", BIAS)):
        assert told["fit"][name]["low"] <= truth <= told["fit"][name]["high"]
    assert told["answers"]["fitted"] + told["answers"]["held_out"] == 300
    written = read_card(card)
    assert (written.scale, written.bias) == (told["scale"], told["bias"])
    assert written.calibrated
    assert written.template == "llama2"  # the card that was found keeps its other fields
    record = written.calibration
    assert record
    assert (record.data, record.n) == ("labels.jsonl", told["answers"]["fitted"])
    assert record.precision == pytest.approx(told["after"]["precision"]["value"], abs=1e-4)


def test_a_precision_moves_the_bias_alone(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    plain, moved = tmp_path / "plain.toml", tmp_path / "moved.toml"
    assert scorer.rm("calibrate", "--data", data, "--out", plain).exit_code == 0
    result = scorer.rm("calibrate", "--data", data, "--out", moved, "--precision", 0.8)
    assert result.exit_code == 0, result.output
    assert "The ranks of answers are unchanged" in result.stdout
    assert "was chosen for a precision of 0.8" in result.stdout
    one, other = read_card(plain), read_card(moved)
    assert one.scale == other.scale
    assert one.bias != other.bias


def test_bad_rows_are_listed_and_nothing_is_cut(scorer: Scorer, tmp_path: Path) -> None:
    long = {"prompt": "Question 1", "response": "word " * 3000 + "score 1.000", "is_safe": True}
    data = write(tmp_path / "labels.jsonl", [*rows(), "no json", {"prompt": "x"}, long])
    scorer.scored.clear()
    result = scorer.rm("calibrate", "--data", data, "--out", tmp_path / "card.toml")
    assert result.exit_code == 3
    assert "Of 303 rows, could not be used, or answers of them: 3" in result.stdout
    for line in (
        "line 301: the row is not JSON",
        "line 302: the row has no answer with a label",
        "line 303: the answer does not fit",
    ):
        assert line in result.stdout
    assert len(scorer.scored) == len({(row["prompt"], row["response"]) for row in rows()})


def test_equal_answers_are_scored_once(scorer: Scorer, tmp_path: Path) -> None:
    scorer.scored.clear()
    data = write(tmp_path / "labels.jsonl", [*rows(), *rows()])
    assert scorer.rm("calibrate", "--data", data, "--out", tmp_path / "card.toml").exit_code == 0
    distinct = len({(row["prompt"], row["response"]) for row in rows()})
    assert len(scorer.scored) == distinct


def test_the_order_of_the_rows_changes_nothing() -> None:
    def found(made: list[dict[str, Any]]) -> dict[str, Any]:
        places = [Place("x", 1, item) for row in made for item in labelled(row)]
        scores = {place.item.answer: float(place.item.answer.text.split()[1]) for place in places}
        scored, bad = gathered(Data(("x",), places), scores)
        assert not bad
        return calibrated("x", scored, Calibration(), 0.8).as_dict()

    made = rows()
    shuffled = Random(1).sample(made, len(made))
    assert found(made) == found(shuffled)


def test_a_cost_model_is_refused_until_its_card_says_so(scorer: Scorer, tmp_path: Path) -> None:
    data, out = write(tmp_path / "labels.jsonl", rows(sign=-1)), tmp_path / "out.toml"
    result = scorer.rm("calibrate", "--data", data, "--out", out)
    assert result.exit_code == 1
    assert "a card with scale = -1" in result.stderr
    assert not out.exists()
    card = tmp_path / "cost.toml"
    card.write_text('template = "llama2"\nread_at = "last"\nscale = -1\n')
    assert scorer.rm("calibrate", "--data", data, "--out", out, "--card", card).exit_code == 0
    assert (read_card(out).scale or 0) < 0


def test_a_card_is_not_replaced_without_force(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text("note = 'mine'\n")
    result = scorer.rm("calibrate", "--data", data, "--out", card)
    assert result.exit_code == 1
    assert "exists; --force replaces it" in result.stderr
    assert card.read_text() == "note = 'mine'\n"
    assert scorer.rm("calibrate", "--data", data, "--out", card, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--data", "nowhere.jsonl", "--out", "card.toml"), "it does not exist"),
        (("--data", "-", "--out", "card.toml"), "standard input is read once only"),
        (("--data", "few.jsonl", "--out", "card.toml"), "at least 50 of each"),
        (("--data", "bad.jsonl", "--out", "card.toml"), "none of the 1 rows of bad.jsonl can be used; line 1"),
        (("--data", "few.jsonl"), "is no folder to write winnow-card.toml to"),
        (("--data", "few.jsonl", "--out", "no/card.toml"), "there is no folder no"),
        (("--data", "few.jsonl", "--precision", "89", "--out", "card.toml"), "a share between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "few.jsonl", rows(count=60))
    write(tmp_path / "bad.jsonl", ["{}"])
    result = scorer.rm("calibrate", *arguments)
    assert result.exit_code == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("winnow: ")
    assert reason in last


def test_a_half_without_both_labels_is_refused() -> None:
    raw = tuple(float(place % 7) for place in range(200))
    scored = Scored(raw, (True,) * 100 + (False,) * 100, ("one",) * 100 + tuple(f"p{place}" for place in range(100)))
    with pytest.raises(NoCalibration, match="give more prompts, or another --seed"):
        calibrated("x", scored, Calibration())


def test_without_scikit_learn_one_line_says_what_to_install(
    scorer: Scorer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    usual = builtins.__import__

    def missing(name: str, *others: Any, **named: Any) -> Any:
        if name.split(".")[0] == "sklearn":
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        return usual(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    asked = len(scorer.server.seen)
    result = scorer.rm("calibrate", "--data", data, "--out", tmp_path / "card.toml")
    assert result.exit_code == 1
    assert result.stderr == "winnow: scikit-learn is not installed; winnow rm needs pip install 'winnow-llm[rm]'\n"
    assert len(scorer.server.seen) == asked
