"""The safety classifier that the settings choose."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from winnow.models.engines.base import PromptReader
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.reward_model import Calibration, RewardModel
from winnow.models.safety_classifier import (
    ClassifierName,
    GuardClassifier,
    GuardModel,
    PatternClassifier,
    ProbeClassifier,
    SafetyClassifier,
)
from winnow.models.types import Message, Prompt
from winnow.server.reward_models import Scoring
from winnow.server.settings import Settings


class SafetyModel(RewardModel, GuardModel, Protocol):
    """A safety reward model as a classifier may ask it: about an answer, or about a prompt alone."""


CLASSIFIERS: Mapping[ClassifierName, Callable[[Settings, SafetyModel, Calibration], SafetyClassifier]] = {
    "patterns": lambda settings, *_: PatternClassifier(settings.safety_patterns),
    "probe": lambda settings, safety, calibration: ProbeClassifier(safety, calibration, settings.safety.probe_margin),
    "guard": lambda _, safety, __: GuardClassifier(safety),
}
"""Each kind's classifier, of the settings, the safety reward model and its calibration. A new kind is a row and its
name."""


def chosen_classifier(settings: Settings, safety: SafetyModel, calibration: Calibration) -> SafetyClassifier:
    """Return the classifier that `settings` name, asking the safety reward model if it needs one."""
    return CLASSIFIERS[settings.safety_classifier](settings, safety, calibration)


def require_judge_of_prompts(settings: Settings, scoring: Scoring) -> None:
    """Check that the safety model can be the guard, if that is the chosen classifier.

    Raises:
        CheckpointError: it has no two label tokens, or its template needs an answer.
    """
    if settings.safety_classifier != "guard":
        return
    card, reader = scoring.scorer.card, scoring.reader
    if len(card.labels) != 2 or not isinstance(reader, PromptReader):
        raise CheckpointError(
            "safety_classifier guard needs a safety model with two label tokens, such as Llama Guard; "
            f"card {card.name} has none"
        )
    try:
        reader.prompt_ids(Prompt((), (Message("user", "Hello."),)), sys.maxsize)
    except CandidateFailed as error:
        raise CheckpointError(f"safety_classifier guard: card {card.name} judges answers only: {error}") from None
