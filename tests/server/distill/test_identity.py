"""The identity of a run: what may differ between two processes that work on it, and what decides its tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from winnow.models.chat_templates import TEMPLATES
from winnow.models.errors import SettingsError
from winnow.models.safety_patterns import DEFAULT_PATTERNS
from winnow.server.distill import identity as module
from winnow.server.distill.command import distill
from winnow.server.distill.identity import identity
from winnow.server.distill.options import RunOptions
from winnow.server.distill.plans import Choices
from winnow.server.settings import Settings

CHOICES = Choices(4, (1.0,), False, 1.0, 64, "llama2", 0)


def settings_of(**settings: Any) -> dict[str, Any]:
    options = RunOptions("p.jsonl", Path("out"), CHOICES)
    found: dict[str, Any] = identity(options, Settings(**settings), TEMPLATES["llama2"], "")["settings"]
    return found


def test_the_classifier_and_what_decides_its_tags_are_part_of_it() -> None:
    patterns = settings_of()
    assert (patterns["safety_classifier"], patterns["safety_patterns"]) == ("patterns", DEFAULT_PATTERNS)
    probe = settings_of(safety_classifier="probe")
    assert probe["safety_classifier"] == "probe"
    assert "safety_patterns" not in probe
    assert probe != settings_of(safety_classifier="probe", safety_probe_margin=1.0)
    assert patterns == settings_of(safety_probe_margin=1.0)
    assert patterns != settings_of(safety_patterns=("bomb",))


def test_a_server_has_no_reward_model_to_probe_here(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "Hello"}\n')
    options = RunOptions(str(tmp_path / "p.jsonl"), tmp_path / "out", CHOICES, server="http://127.0.0.1:9/v1")
    with pytest.raises(SettingsError, match="--server choose patterns"):
        distill(options, Settings(safety_classifier="probe"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "on_gpu", "eager"),
    [
        ({}, False, True),
        ({"eager": True}, False, True),
        ({"compile": True}, False, False),
        ({}, True, "graphs"),
        ({"eager": True}, True, True),
        ({"compile": True}, True, False),
    ],
)
def test_a_run_keeps_to_one_execution_and_knows_those_from_before_graphs(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool], on_gpu: bool, eager: object
) -> None:
    """Manifests had true or false before there were graphs."""
    monkeypatch.setattr(module, "runs_on_gpu", lambda: on_gpu)
    assert module._engine_settings(Settings(**settings))["eager"] == eager  # type: ignore[arg-type]
