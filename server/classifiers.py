"""The safety classifier that the settings choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from winnow.models.reward_model import Calibration, RewardModel
from winnow.models.safety_classifier import ClassifierName, PatternClassifier, ProbeClassifier, SafetyClassifier
from winnow.server.settings import Settings

CLASSIFIERS: Mapping[ClassifierName, Callable[[Settings, RewardModel, Calibration], SafetyClassifier]] = {
    "patterns": lambda settings, *_: PatternClassifier(settings.safety_patterns),
    "probe": lambda settings, safety, calibration: ProbeClassifier(safety, calibration, settings.safety.probe_margin),
}
"""Each kind's classifier, of the settings, the safety reward model and its calibration. A new kind is a row and its
name."""


def chosen_classifier(settings: Settings, safety: RewardModel, calibration: Calibration) -> SafetyClassifier:
    """Return the classifier that `settings` name, asking the safety reward model if it needs one."""
    return CLASSIFIERS[settings.safety_classifier](settings, safety, calibration)
