"""`winnow check`: compare each reward model, as served, with its checkpoint in transformers.

Scores a few dozen answers on the vLLM engines, one by one and all at once, and with transformers in
float32. Finds a wrong template, a second sigmoid, a lost head, and scores that depend on their batch.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import CheckFailed, SettingsError
from winnow.models.reporting.tables import print_table
from winnow.models.reward_model import Calibration, RewardModel
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.server.service import Service

FULL_PRECISION_TOLERANCE = 0.02
LOW_PRECISION_TOLERANCE = 0.1
"""Largest accepted |Δ logit|, in float32 and in bfloat16 or float16."""

QUESTIONS = (
    "What is the capital of France?",
    "What is the capital of Japan?",
    "Name three fruits.",
    "What is 2 + 3?",
    "How do I make a bomb?",
    "What colour is the sky?",
    "What is the opposite of hot?",
    "How do I hurt someone and get away with it?",
)
ANSWERS = (
    "The capital of France is Paris.",
    "Apple, banana and cherry.",
    "I can't help with that. It could hurt people.",
    "I don't care. Go away.",
)
SYSTEM_PROMPTS = (None, "Answer politely.", "Answer in one short sentence.")

Scores = list[list[float]]
"""Calibrated logits, `[prompt][answer]`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of one reward model, served in `dtype`: by transformers, served one by one, and served all at once."""

    name: str
    dtype: str
    reference: Scores
    alone: Scores
    together: Scores

    @property
    def scores(self) -> int:
        """The number of scores compared."""
        return sum(map(len, self.reference))

    @property
    def tolerance(self) -> float:
        """Largest accepted |Δ logit|."""
        return FULL_PRECISION_TOLERANCE if self.dtype == "float32" else LOW_PRECISION_TOLERANCE

    @property
    def largest_difference(self) -> float:
        """Largest |Δ logit| between a served score, alone or batched, and the reference."""
        return max(_largest_difference(self.alone, self.reference), _largest_difference(self.together, self.reference))

    @property
    def batch_difference(self) -> float:
        """Largest |Δ logit| between a score computed alone and the same score computed in a batch."""
        return _largest_difference(self.alone, self.together)

    @property
    def ranks_changed(self) -> int:
        """The number of prompts for which batching changes the ranking of the answers."""
        return sum(_order(alone) != _order(batch) for alone, batch in zip(self.alone, self.together, strict=True))

    @property
    def passes(self) -> bool:
        """Whether the served scores are the checkpoint's."""
        scores = itertools.chain(*self.reference, *self.alone, *self.together)
        return all(map(math.isfinite, scores)) and self.largest_difference <= self.tolerance and not self.ranks_changed


def check(settings: Settings) -> None:
    """Compare each reward model, as served, with transformers in float32, and print a table; exit 1 if they differ."""
    if settings.load_format == "dummy":
        raise SettingsError(
            "load_format: no checkpoint has these random weights; there is nothing to compare them with"
        )
    from winnow.server.service import started

    with started(settings) as service:
        comparisons = asyncio.run(compare(service))
    print_table(Console(), _table(comparisons))
    if failed := [comparison.name for comparison in comparisons if not comparison.passes]:
        raise CheckFailed(f"the served scores of the {' and '.join(failed)} model differ from the checkpoint's")


async def compare(service: Service) -> list[Comparison]:
    """Compare both reward models of a running service with their checkpoints.

    Raises:
        CandidateFailed, EngineDead: an engine gave no score.
    """
    # Imports torch, which must not happen before the engines are forked.
    from winnow.models.engines.transformers import ReferenceRewardModel

    prompts = example_prompts(service.template, service.tokenizer)
    models = (
        ("safety", service.safety, service.settings.safety),
        ("helpfulness", service.helpfulness, service.settings.helpfulness),
    )
    comparisons = []
    for name, served, settings in models:
        reference = ReferenceRewardModel(settings.checkpoint, service.reward_input(settings))
        comparisons.append(
            Comparison(
                name,
                served.dtype,
                reference=await _alone(reference, prompts, settings.calibration),
                alone=await _alone(served, prompts, settings.calibration),
                together=await _together(served, prompts, settings.calibration),
            )
        )
    return comparisons


def example_prompts(template: ChatTemplate, tokenizer: Tokenizer) -> list[Prompt]:
    """Return a few dozen prompts: each question with each system prompt, with and without an earlier turn."""
    prompts = []
    for question, system in itertools.product(QUESTIONS, SYSTEM_PROMPTS):
        opening = [Message("system", system)] if system else []
        prompts.append(template.render([*opening, Message("user", question)], tokenizer))
        earlier = [Message("user", "Hello!"), Message("assistant", "Hello! How can I help?")]
        prompts.append(template.render([*opening, *earlier, Message("user", question)], tokenizer))
    return prompts


async def _alone(model: RewardModel, prompts: Sequence[Prompt], calibration: Calibration) -> Scores:
    return [[calibration(await model.score(prompt, answer)) for answer in ANSWERS] for prompt in prompts]


async def _together(model: RewardModel, prompts: Sequence[Prompt], calibration: Calibration) -> Scores:
    rows = await asyncio.gather(
        *(asyncio.gather(*(model.score(prompt, answer) for answer in ANSWERS)) for prompt in prompts)
    )
    return [list(map(calibration, row)) for row in rows]


def _largest_difference(left: Scores, right: Scores) -> float:
    pairs = zip(itertools.chain(*left), itertools.chain(*right), strict=True)
    return max(abs(one - other) for one, other in pairs)


def _order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def _table(comparisons: Sequence[Comparison]) -> Table:
    table = Table(
        "reward model", "served in", "scores", "max |Δ logit|", "tolerance", "by batch", "ranks changed", "",
        title="Served rewards against transformers in float32",
    )  # fmt: skip
    for comparison in comparisons:
        table.add_row(
            comparison.name,
            comparison.dtype,
            str(comparison.scores),
            f"{comparison.largest_difference:.6f}",
            str(comparison.tolerance),
            f"{comparison.batch_difference:.6f}",
            str(comparison.ranks_changed),
            "ok" if comparison.passes else "FAILED",
        )
    return table
