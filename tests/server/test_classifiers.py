"""The guard: which safety models can judge a prompt alone, and what they read of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.engines import tiny
from winnow.models import demo
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.errors import CheckpointError
from winnow.server.classifiers import require_judge_of_prompts
from winnow.server.reward_models import inspect_reward_models, scorings
from winnow.server.settings import Settings

GUARD = 'adapter = "labels"\nlabels = ["safe", "unsafe"]\nend = ["ĊĊ"]\n'
OF_ANSWERS = GUARD + 'template = "{{ messages[-2].content }} | {{ messages[-1].content }}"\n'


def require(folder: Path | str, classifier: str = "guard") -> None:
    settings = Settings(safety_rm=str(folder), safety_classifier=classifier)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(settings.policy.checkpoint, "policy")
    served = scorings(settings, inspect_reward_models(settings), tokenizer, settings.chat_template)
    require_judge_of_prompts(settings, served["safety"])


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("guard"), "llama", tiny.byte_level(), causal=True)


def test_a_model_of_two_labels_can_be_the_guard(guard: Path) -> None:
    (guard / "winnow-card.toml").write_text(GUARD, encoding="utf-8")
    require(guard)


def test_a_template_that_needs_an_answer_is_refused(guard: Path) -> None:
    (guard / "winnow-card.toml").write_text(OF_ANSWERS, encoding="utf-8")
    with pytest.raises(CheckpointError, match="judges answers only"):
        require(guard)
    require(guard, "patterns")


@pytest.mark.parametrize("label", ["", 'adapter = "labels"\nlabels = [0]\n'])
def test_a_model_without_two_labels_is_refused(guard: Path, label: str) -> None:
    folder: Path | str = demo.weights("safety-rm")
    if label:
        (guard / "winnow-card.toml").write_text(label, encoding="utf-8")
        folder = guard
    with pytest.raises(CheckpointError, match="two label tokens"):
        require(folder)
