"""`winnow check --prompts`: the patterns without an engine, and the probe on scripted ones."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.fakes import ScriptedRewardModel
from tests.live import scripted
from winnow.models.safety_classifier import REFUSAL
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Prompt
from winnow.server.cli.main import app
from winnow.server.service import Service
from winnow.server.settings import Settings

ROWS = (
    ("bomb one", True),
    ("bomb two", True),
    ("bomb three", True),
    ("poem", True),
    ("bath bomb", False),
    ("hi", False),
)
TABLE = "4 harmful and 2 harmless prompts, with 95 % Wilson intervals"


class Poet(ScriptedRewardModel):
    """Prefers to refuse poems, by 3; and everything by 1."""

    async def score(self, prompt: Prompt, answer: str) -> float:
        self.calls += 1
        preference = 3.0 if "poem" in prompt.messages[-1].content else 1.0
        return self.logit(()) + preference * (answer == REFUSAL)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": text, "harmful": label}) for text, label in ROWS))
    return path


def checked(file: Path, *more: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "--prompts", str(file), *more])


def start(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def started(_: Settings) -> Iterator[Service]:
        yield service

    monkeypatch.setattr("winnow.server.service.started", started)


def cells(result: Result, name: str) -> list[str]:
    (line,) = [line for line in result.stdout.splitlines() if name in line.split()]
    return [cell.strip() for cell in line.split("│")[2:-1]]


def test_the_patterns_need_no_engine(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow.server.service.started", None)
    result = checked(file, "--safety-patterns", "bomb")
    assert (result.exit_code, result.stderr) == (0, "")
    assert TABLE in result.stdout
    assert cells(result, "patterns") == ["75.0 % (30.1 to 95.4)", "50.0 % (9.5 to 90.5)"]
    assert "probe" not in result.stdout


def test_the_probe_is_shown_beside_the_patterns_and_its_preferences_help_to_choose_a_margin(
    file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    safety = Poet()
    more = {"safety_classifier": "probe", "safety_probe_margin": 2.0, "safety_patterns": ("bomb",), "safety_scale": 2.0}
    start(scripted(tokenizer, safety=safety, **more), monkeypatch)
    result = checked(file, "--safety-classifier", "probe")
    assert result.exit_code == 0
    assert cells(result, "patterns") == ["75.0 % (30.1 to 95.4)", "50.0 % (9.5 to 90.5)"]
    assert cells(result, "probe") == ["25.0 % (4.6 to 69.9)", "0.0 % (0.0 to 65.8)"]
    assert "2.00 to 6.00 behind harmful prompts and by 2.00 to 2.00 behind harmless" in " ".join(result.stdout.split())
    assert safety.calls == 2 * len(ROWS)


def test_the_guard_is_shown_beside_the_patterns(
    file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Guard(ScriptedRewardModel):
        async def verdict(self, prompt: Prompt) -> float:
            self.calls += 1
            return -1.0 if "one" in prompt.messages[-1].content or "poem" in prompt.messages[-1].content else 2.0

    safety = Guard()
    start(scripted(tokenizer, safety=safety, safety_classifier="guard", safety_patterns=("bomb",)), monkeypatch)
    result = checked(file, "--safety-classifier", "guard")
    assert result.exit_code == 0
    assert cells(result, "patterns") == ["75.0 % (30.1 to 95.4)", "50.0 % (9.5 to 90.5)"]
    assert cells(result, "guard") == ["50.0 % (15.0 to 85.0)", "0.0 % (0.0 to 65.8)"]
    assert safety.calls == len(ROWS)


def test_only_one_kind_of_prompt_has_only_one_share(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,harmful\nHello there,false\n")
    result = checked(tmp_path / "p.csv")
    assert result.exit_code == 0
    assert cells(result, "patterns") == ["no such prompt", "0.0 % (0.0 to 79.3)"]


def test_a_probe_without_a_score_a_prompt_that_is_too_long_and_random_weights_are_one_line(
    file: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(scripted(tokenizer, safety=Poet(logit=lambda ids: math.nan), safety_classifier="probe"), monkeypatch)
    failing = checked(file, "--safety-classifier", "probe")
    long = tmp_path / "long.csv"
    long.write_text("prompt,harmful\nHi,false\n" + "word " * 9000 + ",true\n")
    start(scripted(tokenizer, safety=Poet(), safety_classifier="probe"), monkeypatch)
    too_long = checked(long, "--safety-classifier", "probe")
    random = checked(file, "--safety-classifier", "probe", "--load-format", "dummy")
    missing = checked(tmp_path / "nowhere.csv")
    for result, said in ((failing, "probe"), (too_long, "line 3"), (random, "load_format"), (missing, "nowhere.csv")):
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
