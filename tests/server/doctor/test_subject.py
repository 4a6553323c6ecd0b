"""The models that are tried: the shape asked for, the operator's own, or one that fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.engines import tiny_encoders
from tests.server.doctor.machines import H100, T4
from winnow.models import demo
from winnow.models.engines import hardware
from winnow.models.engines.checkpoint import inspect_policy
from winnow.models.engines.dummy_checkpoints import SHAPES, write
from winnow.models.engines.hardware import Card
from winnow.models.engines.memory import GIB
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.errors import CheckpointError
from winnow.server import engine_options, memory_plan
from winnow.server.doctor import subject as subjects
from winnow.server.doctor.subject import subject
from winnow.server.memory_plan import plan
from winnow.server.settings import Settings

H200 = Card("H200", 141 * GIB, 140 * GIB, (9, 0), mps=True)


def on_card(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    for module in (engine_options, memory_plan, subjects):
        monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
    for module in (engine_options, memory_plan, hardware):
        monkeypatch.setattr(module, "first_card", lambda: card)


def test_on_cpu_it_is_tiny(tmp_path: Path) -> None:
    found = subject(Settings(), None, tmp_path)
    assert found.name == "tiny"
    for name, checkpoint in found.settings.checkpoints.items():
        (inspect_policy if name == "policy" else inspect_scorer)(checkpoint, needs_weights=False)
    assert found.settings.load_format == "dummy"
    assert not found.settings.canary


@pytest.mark.parametrize(
    ("card", "name"),
    [(T4, "tiny"), (H100, "llama-2-7b"), (Card("H200", 141 * GIB, 140 * GIB, (9, 0), True), "llama-2-13b")],
)
def test_on_a_card_it_is_the_largest_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Card, name: str
) -> None:
    on_card(monkeypatch, card)
    assert subject(Settings(), None, tmp_path).name == name


def test_a_shape_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    found = subject(Settings(), "llama-2-7b", tmp_path)
    assert found.shapes["policy"] == SHAPES["llama-2-7b"]
    assert found.shapes["safety"].is_reward_model


def test_an_encoder_is_not_tried(tmp_path: Path) -> None:
    """Its config is not of Llama's kind; the trials are of engines that have processes and caches."""
    encoder = tiny_encoders.encoder(tmp_path / "bert", "bert")
    settings = Settings(safety={"checkpoint": str(encoder), "kind": "transformers"})  # type: ignore[arg-type]
    found = subject(settings, None, tmp_path / "trial")
    assert found.name == "tiny"
    assert plan(found.settings).engine("safety")


def test_of_the_operators_checkpoints_only_the_config_is_read(tmp_path: Path) -> None:
    own = tmp_path / "people/alice/my-model"
    write(own, SHAPES["llama-2-13b"], "policy", demo.weights("policy"))
    for file in own.iterdir():
        if file.name != "config.json":
            file.unlink()
    found = subject(Settings(policy={"checkpoint": str(own)}), None, tmp_path / "dummies")
    assert found.name == "shape of my-model"
    assert {shape.hidden for shape in found.shapes.values()} == {5120}, "the others have its shape too"
    assert "alice" not in str(found.as_json)


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        subject(Settings(policy={"checkpoint": str(tmp_path / "none")}), None, tmp_path)


def test_the_operators_settings_are_kept(tmp_path: Path) -> None:
    given = Settings(dtype="float16", context=512, max_sequences=8, safety={"dtype": "float32"}, api_keys=["secret"])
    found = subject(given, None, tmp_path)
    assert (found.settings.dtype, found.settings.context, found.settings.max_sequences) == ("float16", 512, 8)
    assert found.settings.safety.dtype == "float32"
    assert "secret" not in str(found.options)
    assert Settings(**found.options).checkpoints == found.settings.checkpoints


def test_limits_that_go_together_stay_together(tmp_path: Path) -> None:
    given = Settings(candidates="4-8", max_candidates=8, max_candidates_in_flight=8)
    assert subject(given, None, tmp_path).settings.candidates == given.candidates


def test_a_checkpoint_named_after_a_user_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    write(tmp_path / "alice", SHAPES["tiny"], "policy", demo.weights("policy"))
    found = subject(Settings(policy={"checkpoint": str(tmp_path / "alice")}), None, tmp_path)
    assert "alice" not in found.name
