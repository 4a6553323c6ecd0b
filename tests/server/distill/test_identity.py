"""A run's identity has what decides the tags of its prompts, and a server cannot be probed through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from winnow.models.errors import SettingsError
from winnow.models.safety_patterns import DEFAULT_PATTERNS
from winnow.server.distill.command import distill
from winnow.server.distill.identity import identity
from winnow.server.distill.options import RunOptions
from winnow.server.distill.plans import Choices
from winnow.server.settings import Settings

CHOICES = Choices(4, (1.0,), False, 1.0, 64, "llama2", 0)


def settings_of(**settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = identity(RunOptions("p.jsonl", Path("out"), CHOICES), Settings(**settings), "")["settings"]
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
