"""The calibration of raw logits, and the sanity check at start-up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from winnow.models.cards.evidence import Probe
from winnow.models.errors import CheckpointError
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK, Calibration, require_labels, require_score
from winnow.models.types import Message, Prompt, sigmoid

PROMPT = Prompt((1, 5), (Message("user", SAFETY_CHECK.question),), answer_prefix=" ")


@dataclass
class Scores:
    """A reward model with a fixed raw logit for each answer."""

    better: float
    worse: float
    scored: list[tuple[Prompt, str]] = field(default_factory=list)

    async def score(self, prompt: Prompt, answer: str) -> float:
        self.scored.append((prompt, answer))
        return self.better if answer == SAFETY_CHECK.better else self.worse


def test_calibration() -> None:
    assert Calibration()(1.25) == 1.25
    assert Calibration(scale=-2.0, bias=0.5)(1.25) == -2.0


async def test_the_margin_is_returned_in_calibrated_logits() -> None:
    model = Scores(better=3.0, worse=-1.0)
    assert await SAFETY_CHECK.run("demo", model, PROMPT) == 4.0
    assert model.scored == [(PROMPT, SAFETY_CHECK.better), (PROMPT, SAFETY_CHECK.worse)]
    assert await SAFETY_CHECK.run("demo", model, PROMPT, Calibration(0.5, 7.0)) == 2.0


async def test_a_flipped_sign_is_found_and_a_negative_scale_corrects_it() -> None:
    cost_model = Scores(better=-3.0, worse=1.0)
    with pytest.raises(
        CheckpointError, match=r"demo reward model: its sanity check \(canary\) failed: .* the sign of its scale"
    ):
        await SAFETY_CHECK.run("demo", cost_model, PROMPT)
    assert await SAFETY_CHECK.run("demo", cost_model, PROMPT, Calibration(-1.0)) == 4.0


@pytest.mark.parametrize("constant", [0.3, float("nan"), float("inf")])
async def test_a_margin_is_needed(constant: float) -> None:
    with pytest.raises(CheckpointError, match="canary"):
        await SAFETY_CHECK.run("constant", Scores(constant, constant), PROMPT)


async def test_a_second_sigmoid_is_found() -> None:
    """Its order is right and its margin positive, but no answer would ever be below the safety threshold."""
    with pytest.raises(CheckpointError, match="sigmoid"):
        await SAFETY_CHECK.run("squashed", Scores(sigmoid(3.0), sigmoid(-1.0)), PROMPT)


def test_the_checks_differ_in_their_answers() -> None:
    for check in (SAFETY_CHECK, HELPFULNESS_CHECK):
        assert check.better != check.worse


class Labels:
    """A model with two labels of a given probability."""

    def __init__(self, mass: float | None) -> None:
        self.mass = mass

    async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
        return self.mass


async def test_labels_that_are_unlikely_are_refused() -> None:
    """Llama Guard 3's prompt without the two newlines behind it: the verdict is not what comes next."""
    for fine in (None, 0.5, 1.0):
        await require_labels("safety", Labels(fine), Prompt((1,)), "")
    for low in (0.01, math.nan):
        with pytest.raises(CheckpointError, match="safety reward model: its label tokens have a probability of"):
            await require_labels("safety", Labels(low), Prompt((1,)), "")


async def test_a_published_score_must_come_out() -> None:
    """Raw, whatever the calibration; a bfloat16 model on other kernels may differ a little."""
    probe = Probe(prompt="How do I make a bomb?", answer=SAFETY_CHECK.better, logit=12.5, tolerance=0.25)
    for raw in (12.5, 12.3, 12.75):
        await require_score("safety", Scores(raw, 0), PROMPT, probe)
    for raw in (12.2, -12.5, 1 / (1 + math.exp(-12.5)), math.nan):
        with pytest.raises(CheckpointError, match=r"published with 12\.5 \(± 0\.25\)"):
            await require_score("safety", Scores(raw, 0), PROMPT, probe)
