"""The safety classifier that the settings choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from winnow.models.reward_model import RewardModel
from winnow.models.safety_classifier import ClassifierName, PatternClassifier, ProbeClassifier, SafetyClassifier
from winnow.server.settings import Settings

CLASSIFIERS: Mapping[ClassifierName, Callable[[Settings, RewardModel], SafetyClassifier]] = {
    "patterns": lambda settings, _: PatternClassifier(settings.safety_patterns),
    "probe": lambda settings, safety: ProbeClassifier(
        safety, settings.safety.calibration, settings.safety.probe_margin
    ),
}
"""Each kind's classifier, of the settings and the safety reward model. A new kind is a row here and its name."""


def chosen_classifier(settings: Settings, safety: RewardModel) -> SafetyClassifier:
    """Return the classifier that `settings` name, asking the safety reward model if it needs one."""
    return CLASSIFIERS[settings.safety_classifier](settings, safety)
