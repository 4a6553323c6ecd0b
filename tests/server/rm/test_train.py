"""`winnow rm train`, from rows to a model that winnow serve takes, on tiny checkpoints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

from tests.live import wait_until
from tests.server.rm import tiny
from tests.server.rm.conftest import write
from tests.server.rm.test_evaluate import Checked
from winnow.models.cards import read_card
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.types import Message, Prompt
from winnow.server.cli.main import app
from winnow.server.reward_models import with_reader
from winnow.server.rm import train as command

GOOD, BAD = "That is safe and kind", "Do a bad thing"
QUICK = ("--batch", 16, "--learning-rate", 0.01)


def pairs(count: int = 120, seed: int = 0) -> list[dict[str, Any]]:
    """Preferences that one word decides, rated, with labels; the better answer is the longer one in half of them."""
    rng = Random(seed)
    made = []
    for place in range(count):
        pads = (" and so on", "") if rng.random() < 0.5 else ("", " and so on and on")
        row = {"prompt": f"Question {place}", "chosen": f"{GOOD}{pads[0]}", "rejected": f"{BAD}{pads[1]}"}
        told = {"rating": ("better", "unsure", 3)[place % 3], "category": f"c{place % 2}"}
        made.append(row | told | {"chosen_safe": True, "rejected_safe": False})
    return made


def labels(count: int = 300, seed: int = 0, key: str = "is_safe") -> list[dict[str, Any]]:
    """Labelled answers, two of each prompt, of which one in ten has the wrong label."""
    rng = Random(seed)
    made = []
    for place in range(count):
        good = rng.random() < 0.5
        label = good if rng.random() < 0.9 else not good
        made.append({"prompt": f"Ask {place // 2}", "response": f"{GOOD if good else BAD} {place % 2}", key: label})
    return made


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in this process, whose environment is that of all tests."""
    monkeypatch.setattr(command, "_prepare", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """More are slower for models this small, and take the time of others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama2(tmp_path_factory.mktemp("models") / "chat")


def run(init: Path, out: Path, *arguments: object, kind: str = "safety") -> Result:
    words = ["rm", "train", "--init", init, "--kind", kind, "--out", out, *arguments]
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture(scope="module")
def trained(init: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A safety model, made of preferences and labelled answers; one row is bad."""
    folder = tmp_path_factory.mktemp("trained")
    data = write(folder / "pairs.jsonl", [*pairs(), {"prompt": "x", "chosen": "word " * 300, "rejected": "y"}])
    more = write(folder / "labels.jsonl", labels())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_prepare", lambda _: None)
        result = run(init, folder / "rm", "--data", data, "--data", more, "--held-out", 0.5, "--epochs", 3, *QUICK)
    assert result.exit_code == 3, result.output
    (folder / "stdout").write_text(result.stdout)
    return folder / "rm"


def test_it_learns_what_the_rows_say(trained: Path) -> None:
    told = json.loads((trained / "training.json").read_text())
    accuracy = told["held_out"]["models"][0]["pairs"]["accuracy"]
    assert accuracy["value"] > 0.85
    assert told["held_out"]["baselines"]["longer"]["value"] < 0.8
    assert told["prompts"] == {"all": 270, "held_out": 135}
    assert set(told["held_out"]["models"][0]["pairs"]["by_rating"]) == {"better", "unsure", "3"}
    assert set(told["held_out"]["models"][0]["pairs"]["by_category"]) == {"c0", "c1"}
    steps = [point["step"] for point in told["curve"]]
    assert steps == list(range(1, len(steps) + 1))
    assert told["curve"][-1]["loss"] < told["curve"][0]["loss"]
    rates = [point["learning_rate"] for point in told["curve"]]
    assert max(rates) == pytest.approx(0.01, rel=0.05)
    assert rates[-1] == min(rates[5:]) == pytest.approx(0.001, rel=0.1)
    assert told["bad_rows"] == 1
    assert "and the context is 256" in told["bad_rows_listed"][0]["reason"]


def test_the_folder_is_a_model_that_is_served_without_flags(trained: Path) -> None:
    scorer = inspect_scorer(str(trained))
    assert (scorer.card.template, scorer.card.read_at, scorer.card.calibrated) == ("llama2", "last", True)
    assert scorer.card.name == "rm"
    assert not (trained / ".training").exists()


def test_the_calibration_is_measured_on_the_other_half(trained: Path) -> None:
    told = json.loads((trained / "training.json").read_text())
    card = read_card(trained / "winnow-card.toml")
    assert (card.scale, card.bias) == (told["calibration"]["scale"], told["calibration"]["bias"])
    assert card.calibration
    assert card.calibration.precision == pytest.approx(told["calibration"]["after"]["precision"]["value"], abs=1e-4)
    answers = told["calibration"]["answers"]
    assert card.calibration.n == answers["fitted"]
    assert told["held_out"]["labelled"] == answers["held_out"]
    assert told["held_out"]["models"][0]["safety"]["gate"] == told["calibration"]["after"]


def test_the_scores_are_those_of_the_weights_that_were_written(trained: Path) -> None:
    """transformers reads the same accuracy from the folder, at the last token and through its padding."""
    told = json.loads((trained / "training.json").read_text())
    model = AutoModelForSequenceClassification.from_pretrained(trained, dtype=torch.float32).eval()
    _, reader = with_reader(inspect_scorer(str(trained)))
    wins = []
    for place in range(120):
        row = pairs()[place]
        prompt = Prompt((), (Message("user", row["prompt"]),))
        ids = [reader.token_ids(prompt, row[side]) for side in ("chosen", "rejected")]
        tokenizer = AutoTokenizer.from_pretrained(trained)
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        with torch.inference_mode():
            chosen, rejected = model(**batch).logits[:, 0].tolist()
        wins.append(chosen > rejected)
    assert sum(wins) / len(wins) == pytest.approx(told["held_out"]["models"][0]["pairs"]["accuracy"]["value"], abs=0.15)


def test_the_page_is_whole(trained: Path) -> None:
    page = (trained / "training.html").read_text()
    Checked().feed(page)
    assert page.count("<svg") == 3
    assert page.count("<img") == 2
    assert "line 121: prompt and answer have" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_it_says_in_words_what_it_did(trained: Path) -> None:
    shown = (trained.parent / "stdout").read_text()
    for words in (
        "measured on 135 of 270 prompts, which were held out",
        "have no rating: they were trained with m(r) = 0",
        "Calibrated on half of the held-out labels",
        "Of 421 rows, could not be used, or answers of them: 1",
        "the longer answer",
    ):
        assert words in shown


def test_a_reward_model_is_trained_further_and_compared_with_itself(trained: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", pairs(60, seed=1))
    result = run(trained, tmp_path / "next", "--data", data, "--held-out", 0.3, "--json", "--lora", 4, *QUICK)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [model["name"] for model in told["held_out"]["models"]] == ["next", "rm, before"]
    assert told["held_out"]["models"][1]["calibrated"]
    assert told["held_out"]["difference"]["count"] == 18
    assert told["calibration"] is None
    assert "at least 50 of each are needed" in told["uncalibrated"]
    assert not read_card(tmp_path / "next" / "winnow-card.toml").calibrated
    assert inspect_scorer(str(tmp_path / "next")).card.scale == 1


def test_a_helpfulness_model_learns_labels_of_helpfulness(init: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "labels.jsonl", labels(400, key="is_helpful"))
    result = run(
        init, tmp_path / "rm", "--data", data, "--held-out", 0.5, "--epochs", 3, "--upper-layers", 1, *QUICK,
        kind="helpfulness",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "The gate R_h < 0.15" in result.stdout
    assert "unhelpful" in (tmp_path / "rm" / "training.html").read_text()
    assert read_card(tmp_path / "rm" / "winnow-card.toml").calibrated


def test_a_mix_is_counted(init: Path, tmp_path: Path) -> None:
    safety = write(tmp_path / "safety.jsonl", pairs(60))
    other = write(tmp_path / "other.jsonl", [row | {"prompt": f"Other {row['prompt']}"} for row in pairs(60)])
    result = run(init, tmp_path / "rm", "--mix", f"0.9:{safety}", "--mix", f"0.1:{other}", "--margins", "none", *QUICK)
    assert result.exit_code == 0, result.output
    assert re.search(r"other.jsonl: \d of \d\d examples used, \d\d left over", result.stdout)
    assert "no rating" not in result.stdout


def test_a_byte_level_model_is_served_what_it_was_trained_on(tmp_path: Path) -> None:
    init = tiny.chatml(tmp_path / "chat")
    rows = [row | {"prompt": f"{row['prompt']} <|im_end|>"} for row in pairs(40)]
    result = run(init, tmp_path / "rm", "--data", write(tmp_path / "a.jsonl", rows), "--dtype", "float32", *QUICK)
    assert result.exit_code == 0, result.output
    scorer = inspect_scorer(str(tmp_path / "rm"))
    assert (scorer.card.template, scorer.card.read_at) == ("tokenizer", "last")
    assert scorer.pad_id not in (None, scorer.config["eos_token_id"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give files with --data, or a mix"),
        (("--data", "a.jsonl", "--mix", "1:a.jsonl"), "give files with --data, or a mix"),
        (("--mix", "a.jsonl"), "--mix: a share above 0"),
        (("--data", "nowhere.jsonl"), "it does not exist"),
        (("--data", "a.jsonl", "--held-out", "1"), "--held-out: a share between 0 and 1"),
        (("--data", "a.jsonl", "--held-out", "0.01"), "some must be on each side"),
        (("--data", "a.jsonl", "--batch", "0"), "batch"),
        (("--data", "a.jsonl", "--lora", "4", "--upper-layers", "1"), "low-rank adapters or the upper layers"),
        (("--data", "a.jsonl", "--upper-layers", "3"), "has 2 layers, so its last 3 cannot be trained"),
        (("--data", "a.jsonl", "--context", "4096"), "reads at most 256 tokens"),
        (("--data", "few.jsonl"), "at least 10 are needed"),
        (("--data", "a.jsonl", "--out", "a.jsonl"), "is no folder"),
        (("--data", "a.jsonl", "--init", "nowhere"), "nowhere"),
        (("--data", "a.jsonl", "--init", "bare"), "reward model: bare has no tokenizer.json"),
        (("--data", "a.jsonl", "--card", "none.toml"), "none.toml"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path / "a.jsonl", pairs(20))
    write(tmp_path / "few.jsonl", pairs(5))
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).symlink_to(init / name)
    result = run(init, Path("out"), *arguments)
    assert result.exit_code == 1, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("winnow: ")
    assert reason in last
    assert not Path("out").exists()


def test_a_training_that_diverges_says_so(init: Path, tmp_path: Path) -> None:
    """And not that its own folder belongs to another run."""
    data = write(tmp_path / "a.jsonl", pairs(40))
    result = run(init, tmp_path / "rm", "--data", data, "--batch", 4, "--learning-rate", 1e30, "--epochs", 3)
    assert result.exit_code == 1
    assert "the loss is no finite number any more" in result.stderr
    assert not (tmp_path / "rm" / "training.json").exists()


def test_a_missing_package_is_said_before_anything_is_read(
    init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "trl" else object())
    result = run(init, tmp_path / "out", "--data", "nowhere.jsonl")
    assert result.exit_code == 1
    assert result.stderr == "winnow: trl is not installed; winnow rm train needs pip install 'winnow-llm[train]'\n"


def test_another_run_in_the_same_folder_is_refused_until_forced(init: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", pairs(20))
    out = tmp_path / "rm"
    ended = run(init, out, "--data", data, "--learning-rate", 0)
    assert ended.exit_code == 1
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_finished", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(init, out, "--data", data, *QUICK).exit_code != 0
    other = run(init, out, "--data", data, *QUICK, "--epochs", 2)
    assert other.exit_code == 1
    assert "has an unfinished training with another checkpoint, data or recipe" in other.stderr
    assert run(init, out, "--data", data, *QUICK, "--epochs", 2, "--force").exit_code == 0
    again = run(init, out, "--data", data, *QUICK, "--epochs", 2)
    assert again.exit_code == 1
    assert "has a trained model; --force trains another in its place" in again.stderr


def test_after_a_failure_before_the_first_checkpoint_another_recipe_needs_no_force(init: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", pairs(60))
    failed = run(init, tmp_path / "rm", "--data", data, *QUICK, "--learning-rate", 1e10)
    assert failed.exit_code == 1
    assert "train with a lower learning rate" in failed.stderr
    assert run(init, tmp_path / "rm", "--data", data, *QUICK, "--batch", 32).exit_code == 0
    assert len(json.loads((tmp_path / "rm" / "training.json").read_text())["curve"]) == 2


def test_a_killed_command_goes_on_to_the_same_bytes(
    init: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """Killed while it trains, and started again: the same weights as without the interruption."""
    data = write(tmp_path / "a.jsonl", pairs(120))
    options = ("--data", data, "--batch", 8, "--learning-rate", 0.001, "--epochs", 2)
    assert run(init, tmp_path / "whole", *options).exit_code == 0
    words = ["rm", "train", "--init", init, "--kind", "safety", "--out", tmp_path / "killed", *options]
    start = [sys.executable, "-c", "from winnow.server.cli.main import main; main()", *map(str, words)]
    curve = tmp_path / "killed" / ".training" / "curve.jsonl"
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | QUIET) as process:
        assert wait_until(lambda: curve.exists() and curve.read_bytes().count(b"\n") > 15, 120)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert list((tmp_path / "killed" / ".training" / "steps").glob("checkpoint-*"))
    result = run(init, tmp_path / "killed", *options)
    assert result.exit_code == 0, result.output
    assert "going on with the training" in caplog.text
    contents = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert contents[0] == contents[1]
    curves = [json.loads((tmp_path / name / "training.json").read_text())["curve"] for name in ("whole", "killed")]
    assert curves[0] == curves[1]


QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
