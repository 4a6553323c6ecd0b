"""One model started alone: an encoder in this process, and the demo's safety model on a real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from tests.models.engines import tiny_encoders
from tests.server.rm.conftest import write
from winnow.models import demo
from winnow.models.cards import read_card
from winnow.models.demo.world import held_out_pairs
from winnow.models.errors import RunError
from winnow.models.types import Message
from winnow.server.cli.main import app
from winnow.server.rm.rows import Answer
from winnow.server.rm.scoring import Choice, inspected, score_all

HI = (Message("user", "Hi"),)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders.encoder(tmp_path_factory.mktemp("rm") / "mine", "bert")


def test_an_encoder_scores_each_answer_once_and_cuts_none(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = Choice(str(encoder))
    answers = [Answer(HI, "Hello!"), Answer(HI, "word " * 5000), Answer(HI, "Hello!"), Answer(HI, "")]
    scores = score_all(choice, inspected(choice), answers)
    assert len(scores) == 3
    assert isinstance(scores[answers[0]], float)
    assert "does not fit" in str(scores[answers[1]])
    assert "scored 3 of 3 answers" in capsys.readouterr().err


def test_no_score_at_all_is_an_error(encoder: Path) -> None:
    choice = Choice(str(encoder))
    with pytest.raises(RunError, match=r"no answer could be scored: .*does not fit"):
        score_all(choice, inspected(choice), [Answer(HI, "word " * 5000)])


def test_an_encoder_is_evaluated(encoder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"q {place}", "chosen": f"a {place}", "rejected": f"b {place}"} for place in range(20)]
    data = write(tmp_path / "pairs.jsonl", rows)
    result = CliRunner().invoke(app, ["rm", "eval", str(encoder), "--data", str(data), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["models"][0]["pairs"]["accuracy"]["count"] == 20


@pytest.mark.engine
def test_the_demos_safety_model_is_calibrated_and_measured_on_its_engine(tmp_path: Path) -> None:
    """Its scores say what the demo world's judge says, but for labels that are noisy on purpose."""
    folder = Path(shutil.copytree(demo.weights("safety-rm"), tmp_path / "mine"))
    rng, rows = Random(0), []
    for pair in held_out_pairs(150, kind="safety"):
        dialog = [message.as_dict() for message in pair.messages]
        for answer, is_safe in ((pair.chosen, True), (pair.rejected, False)):
            rows.append({"messages": dialog, "response": answer, "is_safe": is_safe is (rng.random() > 0.1)})
    labels = write(tmp_path / "labels.jsonl", rows)

    def rm(*words: object) -> dict[str, object]:
        code = "from winnow.server.cli.main import main; main()"
        arguments = [sys.executable, "-c", code, "rm", *map(str, words), "--data", str(labels), "--json"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    told = rm("calibrate", folder, "--force")
    card = read_card(folder / "winnow-card.toml")
    assert card.calibrated
    assert (card.scale, card.template) == (told["scale"], "llama2")
    (model,) = rm("eval", folder)["models"]  # type: ignore[misc]
    assert model["calibration"]["scale"] == told["scale"]
    assert model["safety"]["gate"]["brier"] < 0.2
