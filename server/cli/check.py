"""`winnow check`: are the served rewards what the checkpoints say?

Scores a few dozen answers on the vLLM engines, alone and all at once, and with transformers in float32, and compares. It
catches a wrong template, a second sigmoid, a lost head and scores that depend on their batch.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.errors import SettingsError, WinnowError
from winnow.models.reward_model import Calibration, RewardModel
from winnow.models.types import Message, Prompt
from winnow.server.service import Service, started
from winnow.server.settings import Settings

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


class CheckFailed(WinnowError):
    """A served reward model differs from its checkpoint by more than the tolerance."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One reward model's scores by three ways, as logits: `[prompt][answer]`."""

    name: str
    reference: list[list[float]]
    alone: list[list[float]]
    together: list[list[float]]

    @property
    def scores(self) -> int:
        """How many scores were compared."""
        return sum(map(len, self.reference))

    @property
    def largest_difference(self) -> float:
        """Largest |Δ logit| between a served score, alone or batched, and the reference."""
        return max(_largest_difference(self.alone, self.reference), _largest_difference(self.together, self.reference))

    @property
    def batch_difference(self) -> float:
        """Largest |Δ logit| between a score computed alone and the same one computed in a batch."""
        return _largest_difference(self.alone, self.together)

    @property
    def ranks_changed(self) -> int:
        """Prompts whose ranking of the answers depends on the batch they were scored in."""
        return sum(_order(alone) != _order(batch) for alone, batch in zip(self.alone, self.together, strict=True))

    def passes(self, tolerance: float) -> bool:
        """Whether the served scores are the checkpoint's."""
        scores = itertools.chain(*self.reference, *self.alone, *self.together)
        return all(map(math.isfinite, scores)) and self.largest_difference <= tolerance and self.ranks_changed == 0


def check(settings: Settings) -> None:
    """Compare both reward models and print the table.

    Raises:
        CheckFailed: a difference is above the tolerance, or a rank depends on the batch.
        CheckpointError: a model cannot be served.
        SettingsError: the weights are to be random, so that there is nothing to compare with.
    """
    if settings.load_format == "dummy":
        raise SettingsError("load_format: random weights are in no checkpoint; there is nothing to compare them with")
    with started(settings) as service:
        comparisons = asyncio.run(_compare(service))
    tolerance = FULL_PRECISION_TOLERANCE if service.safety.dtype == "float32" else LOW_PRECISION_TOLERANCE
    Console().print(_table(comparisons, service.safety.dtype, tolerance))
    failed = [comparison.name for comparison in comparisons if not comparison.passes(tolerance)]
    if failed:
        raise CheckFailed(f"the served scores of the {' and '.join(failed)} model differ from the checkpoint's")


async def _compare(service: Service) -> list[Comparison]:
    from winnow.models.engines.transformers import (
        ReferenceRewardModel,  # imports torch, which must wait until the engines are forked
    )

    settings, template = service.settings, service.template
    prompts = dialogs(template)
    answers = [tuple(template.encode_answer(answer)) for answer in ANSWERS]
    models: list[tuple[str, RewardModel, str, Calibration]] = [
        ("safety", service.safety, settings.safety_rm, settings.safety_calibration),
        ("helpfulness", service.helpfulness, settings.helpfulness_rm, settings.helpfulness_calibration),
    ]
    comparisons = []
    for name, served, checkpoint, calibration in models:
        reference = ReferenceRewardModel(checkpoint, template.eos_id, calibration)
        comparisons.append(
            Comparison(
                name,
                reference=[[await reference.score(prompt, ids) for ids in answers] for prompt in prompts],
                alone=[[await served.score(prompt, ids) for ids in answers] for prompt in prompts],
                together=await _together(served, prompts, answers),
            )
        )
    return comparisons


def dialogs(template: Llama2Template) -> list[Prompt]:
    """A few dozen prompts: every question under every system prompt, and each after an earlier turn."""
    prompts = []
    for question, system in itertools.product(QUESTIONS, SYSTEM_PROMPTS):
        opening = [Message("system", system)] if system else []
        prompts.append(template.render([*opening, Message("user", question)]))
        earlier = [Message("user", "Hello!"), Message("assistant", "Hello! How can I help?")]
        prompts.append(template.render([*opening, *earlier, Message("user", question)]))
    return prompts


async def _together(
    served: RewardModel, prompts: Sequence[Prompt], answers: Sequence[tuple[int, ...]]
) -> list[list[float]]:
    pairs = list(itertools.product(prompts, answers))
    flat = await asyncio.gather(*(served.score(prompt, ids) for prompt, ids in pairs))
    return [list(flat[start : start + len(answers)]) for start in range(0, len(flat), len(answers))]


def _largest_difference(left: list[list[float]], right: list[list[float]]) -> float:
    pairs = zip(itertools.chain(*left), itertools.chain(*right), strict=True)
    return max(abs(one - other) for one, other in pairs)


def _order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def _table(comparisons: list[Comparison], dtype: str, tolerance: float) -> Table:
    table = Table(
        "reward model", "scores", "max |Δ logit|", "by batch", "ranks changed", "",
        title=f"Served in {dtype} against transformers in float32 (tolerance {tolerance})",
    )  # fmt: skip
    for comparison in comparisons:
        table.add_row(
            comparison.name,
            str(comparison.scores),
            f"{comparison.largest_difference:.6f}",
            f"{comparison.batch_difference:.6f}",
            str(comparison.ranks_changed),
            "ok" if comparison.passes(tolerance) else "FAILED",
        )
    return table
