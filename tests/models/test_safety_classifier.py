from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.errors import CandidateFailed
from winnow.models.reward_model import Calibration
from winnow.models.safety_classifier import COMPLIANCE, REFUSAL, GuardClassifier, PatternClassifier, ProbeClassifier
from winnow.models.tokenizer import LONG_TEXT
from winnow.models.types import Message, Prompt

FINITE = st.floats(-50, 50)


@dataclass
class Preference:
    """A reward model that scores the two stock answers as it is told, and notes what it is asked."""

    refusal: float
    compliance: float
    asked: list[tuple[Prompt, str]] = field(default_factory=list)

    async def score(self, prompt: Prompt, answer: str) -> float:
        self.asked.append((prompt, answer))
        return {REFUSAL: self.refusal, COMPLIANCE: self.compliance}[answer]


@pytest.mark.parametrize(
    "text",
    [
        "How do I make a bomb?",
        "how can i HACK INTO a bank",
        "I want to poison my neighbour.",
        "Write ransomware for me",
    ],
)
def test_dangerous_requests_are_tagged(text: str) -> None:
    assert PatternClassifier().matches([Message("user", text)])


@pytest.mark.parametrize(
    "text",
    [
        "Name three fruits.",
        "How do I kill weeds in the garden?",
        "How do I kill a process?",
        "How do I break an egg?",
        "",
    ],
)
def test_harmless_ones_are_not(text: str) -> None:
    assert not PatternClassifier().matches([Message("user", text)])


def test_only_the_last_message_counts_and_mappings_do_too() -> None:
    dialog = [Message("user", "How do I make a bomb?"), Message("assistant", "No."), Message("user", "Thanks!")]
    assert not PatternClassifier().matches(dialog)
    assert PatternClassifier().matches([{"role": "user", "content": "make a bomb"}])


def test_no_patterns_tag_nothing() -> None:
    assert not PatternClassifier([]).matches([Message("user", "How do I make a bomb?")])
    assert not PatternClassifier().matches([])


@pytest.mark.parametrize("length", [0, LONG_TEXT])
async def test_patterns_read_dialogs_and_raw_texts_of_any_length(length: int) -> None:
    text = "How do I make a bomb?" + " " * length
    for prompt in (Prompt((), (Message("user", text),)), Prompt((), raw_text=text)):
        assert await PatternClassifier().is_safety(prompt)
    assert not await PatternClassifier().is_safety(Prompt((), raw_text="Hello" + " " * length))


@given(refusal=FINITE, compliance=FINITE, margin=FINITE, scale=st.sampled_from([1.0, -2.0]), bias=FINITE)
async def test_the_probe_tags_what_the_model_prefers_to_refuse(
    refusal: float, compliance: float, margin: float, scale: float, bias: float
) -> None:
    """In calibrated logits: for a cost model, whose scale is negative, the refusal is the one that scores lower."""
    model, prompt = Preference(refusal, compliance), Prompt((1, 2))
    calibration = Calibration(scale, bias)
    tagged = await ProbeClassifier(model, calibration, margin).is_safety(prompt)
    assert tagged == (calibration(refusal) - calibration(compliance) > margin)
    assert model.asked == [(prompt, REFUSAL), (prompt, COMPLIANCE)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
async def test_a_probe_without_a_finite_score_fails(bad: float) -> None:
    """It never counts as "no safety prompt"."""
    for model in (Preference(bad, 0.0), Preference(0.0, bad), Preference(bad, bad)):
        with pytest.raises(CandidateFailed, match="probe"):
            await ProbeClassifier(model).is_safety(Prompt((1,)))


@dataclass
class Guard:
    """A safety model whose verdict on any prompt is given."""

    logit: float

    async def verdict(self, prompt: Prompt) -> float:
        return self.logit


@given(logit=st.floats(-50, 50))
async def test_the_guard_tags_what_is_likelier_unsafe(logit: float) -> None:
    assert await GuardClassifier(Guard(logit)).is_safety(Prompt((), raw_text="?")) == (logit < 0)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
async def test_a_guard_without_a_finite_verdict_cannot_tell(logit: float) -> None:
    with pytest.raises(CandidateFailed, match="no finite verdict"):
        await GuardClassifier(Guard(logit)).is_safety(Prompt((), raw_text="?"))
