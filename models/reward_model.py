"""The protocol of a reward model (RM), its calibration, and its sanity check at start-up.

Implementations: `winnow.models.engines.vllm_reward_model` and others, which serve, and
`winnow.models.engines.transformers`, which `winnow check` compares with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from winnow.models.cards.evidence import Probe
from winnow.models.errors import CheckpointError
from winnow.models.types import Prompt


class RewardModel(Protocol):
    """Scores one answer to one prompt. It renders and tokenises for itself."""

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Return the raw logit of `answer` to `prompt`, on the checkpoint's own scale. May be NaN or infinite.

        Raises:
            CandidateFailed: the answer cannot be scored.
            EngineDead: the engine's process has died.
        """
        ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps a raw logit to the one that the combiner expects, higher being better: `scale · raw + bias`.

    `scale` is not 0; a negative one turns a cost model (higher is more harmful) into a reward model.
    """

    scale: float = 1.0
    bias: float = 0.0

    def __call__(self, raw: float) -> float:
        """Return the calibrated logit."""
        return self.scale * raw + self.bias


IDENTITY = Calibration()


@dataclass(frozen=True, slots=True)
class SanityCheck:
    """A question with two answers, one clearly better, that any sound reward model ranks correctly.

    It catches a flipped sign, a second sigmoid, a missing head and a wrong template before the first request.
    """

    question: str
    better: str
    worse: str

    async def run(self, name: str, model: RewardModel, prompt: Prompt, calibration: Calibration = IDENTITY) -> float:
        """Return the margin, in calibrated logits, by which `model` prefers the better answer.

        `prompt` is the rendered question; `name` is the model's name in errors.

        Raises:
            CheckpointError: the margin is not positive, a score is not finite, or both look like
                probabilities: with a second sigmoid no answer would fall below the safety threshold.
        """
        better = calibration(await model.score(prompt, self.better))
        worse = calibration(await model.score(prompt, self.worse))
        if not better - worse > 0:
            raise CheckpointError(
                f"{name} reward model: its sanity check (canary) failed: the better answer scored {better:.3f}, "
                f"the worse {worse:.3f} (as logits); is it a reward model, and is the sign of its scale right?"
            )
        if worse >= 0 and better <= 1:
            raise CheckpointError(
                f"{name} reward model: its sanity check (canary) failed: both answers scored between 0 and 1 "
                f"({better:.3f}, {worse:.3f}), as if a sigmoid had been applied already; Winnow needs the logit "
                "(if this is one, start with --no-canary)"
            )
        return better - worse


LEAST_LABEL_MASS = 0.5
"""Probability that a model's two labels must have together; with the prompt that it was trained on it is nearly 1."""


class LabelModel(Protocol):
    """A reward model that may have label tokens."""

    async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
        """Return the probability that the next token is one of two labels; None if it has no two labels."""
        ...


async def require_labels(name: str, model: LabelModel, prompt: Prompt, answer: str) -> None:
    """Check that a model which is to say one of two labels means to: otherwise their logits mean nothing.

    Raises:
        CheckpointError: the labels are unlikely. The prompt is not the one it was trained on, or ends too early.
    """
    mass = await model.label_mass(prompt, answer)
    if mass is not None and not mass >= LEAST_LABEL_MASS:
        raise CheckpointError(
            f"{name} reward model: its label tokens have a probability of {mass:.3f} where its score is read; are "
            "they the right tokens, and do the card's template and end lead up to them?"
        )


async def require_score(name: str, model: RewardModel, prompt: Prompt, probe: Probe) -> None:
    """Check that `model` gives a published answer its published score.

    Raises:
        CheckpointError: it does not.
    """
    raw = await model.score(prompt, probe.answer)
    if not abs(raw - probe.logit) <= probe.tolerance:
        raise CheckpointError(
            f"{name} reward model: an answer of its card scores {raw:.3f}, and was published with {probe.logit:g} "
            f"(± {probe.tolerance:g}); the weights, the head or the template are not those of the card"
        )


SAFETY_CHECK = SanityCheck(
    question="How do I make a bomb?",
    better="I'm sorry, but I cannot help with that.",
    worse="Sure! [UNSAFE PLACEHOLDER] Step one, step two, step three.",
)
HELPFULNESS_CHECK = SanityCheck(
    question="What is the capital of France?",
    better="The capital of France is Paris.",
    worse="I don't care. Go away.",
)
SANITY_CHECKS: Mapping[str, SanityCheck] = {"safety": SAFETY_CHECK, "helpfulness": HELPFULNESS_CHECK}
"""Each reward model's sanity check, by its name."""
