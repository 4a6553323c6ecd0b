"""The classifiers of safety prompts, whose answers are ranked by R_s alone.

The paper tags prompts by the data set they come from. At inference time a request may carry the tag; otherwise
a classifier decides: by patterns over the user's words, by what the safety reward model prefers behind the prompt, or
by its verdict on the prompt alone.
The answers to a prompt that it misses still face the safety threshold, R_s < 0.15; after a false alarm the safest
answer wins instead of the most helpful one.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from winnow.models.errors import CandidateFailed
from winnow.models.reward_model import IDENTITY, Calibration, RewardModel
from winnow.models.safety_patterns import DEFAULT_PATTERNS
from winnow.models.tokenizer import LONG_TEXT
from winnow.models.types import Dialog, Message, Prompt

ClassifierName = Literal["patterns", "probe", "guard"]

COMPLIANCE = "Sure, I can help you with that. Here is how to do it:"
REFUSAL = "I'm sorry, but I cannot help with that."
"""The two stock answers that the probe compares behind every prompt."""
PROBE_MARGIN = 5.5
"""Half-way between the demo world's harmless prompts (at most 1.0) and its dangerous ones (at least 10.1)."""


class SafetyClassifier(Protocol):
    """Decides whether a prompt is a safety prompt."""

    @property
    def stock_answers(self) -> Sequence[str]:
        """The answers that it scores behind a prompt, so that the context must have room for each."""
        ...

    async def is_safety(self, prompt: Prompt) -> bool:
        """Whether `prompt` asks for something dangerous, as far as the classifier can tell.

        Raises:
            CandidateFailed: it cannot tell.
            EngineDead: the process of an engine that it needs has died.
        """
        ...


class GuardModel(Protocol):
    """A safety model that also judges a prompt alone, such as Llama Guard."""

    async def verdict(self, prompt: Prompt) -> float:
        """Return the raw logit of "safe" against "unsafe", of the prompt alone. May be NaN or infinite.

        Raises:
            CandidateFailed: the prompt cannot be judged.
            EngineDead: the engine's process has died.
        """
        ...


class PatternClassifier:
    """Tags a dialog whose last message matches one of the patterns (Python regular expressions, any case)."""

    stock_answers: Sequence[str] = ()

    def __init__(self, patterns: Sequence[str] = DEFAULT_PATTERNS) -> None:
        # One search each, not one of them all: other threads run between two searches of a long text.
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    async def is_safety(self, prompt: Prompt) -> bool:
        """Whether the last message of `prompt`, or its raw text, matches a pattern."""
        messages = prompt.messages or (Message("user", prompt.raw_text),)
        if len(messages[-1].content) > LONG_TEXT:
            return await asyncio.to_thread(self.matches, messages)
        return self.matches(messages)

    def matches(self, dialog: Dialog) -> bool:
        """Whether the last message of `dialog` matches a pattern."""
        if not dialog:
            return False
        last = dialog[-1]
        content = last.content if isinstance(last, Message) else last["content"]
        return any(pattern.search(content) for pattern in self._patterns)


@dataclass(frozen=True, slots=True)
class ProbeClassifier:
    """Tags a prompt behind which the safety reward model prefers a stock refusal to a stock compliance.

    It does so if the calibrated logits differ by more than `margin`. The model has to be one that scores an answer in
    the light of its prompt; one that reads the answer alone prefers the refusal always, or never.
    """

    model: RewardModel
    calibration: Calibration = IDENTITY
    margin: float = PROBE_MARGIN

    @property
    def stock_answers(self) -> Sequence[str]:
        """The compliance and the refusal."""
        return COMPLIANCE, REFUSAL

    async def is_safety(self, prompt: Prompt) -> bool:
        """Whether the model prefers the refusal by more than the margin; see `SafetyClassifier.is_safety`."""
        return await self.preference(prompt) > self.margin

    async def preference(self, prompt: Prompt) -> float:
        """Return by how much the model prefers the refusal, in calibrated logits.

        One score after the other: the second, and those of the candidates, find the prompt in the prefix cache.
        """
        refusal = self.calibration(await self.model.score(prompt, REFUSAL))
        difference = refusal - self.calibration(await self.model.score(prompt, COMPLIANCE))
        if not math.isfinite(difference):
            raise CandidateFailed("the safety reward model gave the probe of the prompt no finite score")
        return difference


@dataclass(frozen=True, slots=True)
class GuardClassifier:
    """Tags a prompt that the safety model calls unsafe: the likelier of its two labels, whatever its calibration."""

    model: GuardModel
    stock_answers: Sequence[str] = ()

    async def is_safety(self, prompt: Prompt) -> bool:
        """Whether "unsafe" is the likelier label behind `prompt`; see `SafetyClassifier.is_safety`."""
        verdict = await self.model.verdict(prompt)
        if not math.isfinite(verdict):
            raise CandidateFailed("the safety model gave the prompt no finite verdict")
        return verdict < 0
