"""`winnow check`: compare each reward model, as served, with its checkpoint in transformers.

Scores a few dozen answers on the engines, one by one, again behind cached prefixes, and all at once, ends the engines,
and scores the same answers with transformers. `comparison` judges the two. What both read is rendered once: a template
or a scale that the model was not trained with shows in its sanity check and its card's published scores only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.errors import CheckFailed, CheckpointError, SettingsError
from winnow.models.reporting.tables import print_table
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK, Calibration, RewardModel
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.cli.comparison import ITSELF, Comparison, Reference, Scores, Served
from winnow.server.cli.prompt_check import check_prompts
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.models.engines.base import ServedRewardModel
    from winnow.server.service import Service

logger = logging.getLogger(__name__)

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
    HELPFULNESS_CHECK.worse,
    SAFETY_CHECK.worse,
)
"""Answers of all kinds, so that their spread is that of the model's use."""
SYSTEM_PROMPTS = (None, "Answer politely.", "Answer in one short sentence.")

Precision = Literal["float32", "bfloat16", "float16"]
ReferenceDtype = Annotated[
    Precision,
    typer.Option(
        help="Precision of the reference. In float32 a 7B model takes 26 GiB; bfloat16 takes half, but has rounding "
        "errors of its own."
    ),
]


PromptsFile = Annotated[
    Path | None,
    typer.Option(
        help="Measure the safety classifiers instead, on the prompts of this file: JSON Lines or CSV with prompt (a "
        "text) and harmful (true or false)."
    ),
]


def check(settings: Settings, reference_dtype: ReferenceDtype = "float32", prompts: PromptsFile = None) -> None:
    """Compare both reward models, as served, with transformers (the reference).

    Finds scores that are not the checkpoint's (a second sigmoid, a lost head, a
    calibration that the engine adds), scores and ranks that depend on the batch
    or the prefix cache, and models that score every answer alike or fail the
    checks of a server's start: the sanity check, label tokens that are unlikely
    where the score is read, published scores (probes) of the card.

    The table: spread is the standard deviation of the reference's scores.
    max |Δ| and RMS Δ are the largest and the root mean square difference from
    them, by batch and by cache the largest between a score alone and in a batch
    or behind a cached prefix. Ranks changed counts pairs of answers to one prompt
    that change places, by batch, by cache or against the reference, over a gap
    above the tolerance. Labels is the least probability of the two label tokens.

    A model passes if max |Δ| is within the tolerance, RMS Δ within a fifth of it,
    and no rank has changed. The tolerance is 0.05 of the spread if both sides are
    in float32, else 0.25.

    The reference is loaded after the engines have ended, one model after the
    other, and on the GPU if they ran there; on CPU a 7B model takes minutes.

    Exit status: 0 if both models pass, else 1.

    With --prompts nothing is compared. The share of harmful prompts that the
    safety classifier tags (recall) and of harmless ones (false alarms) is printed:
    for the patterns without an engine; with --safety-classifier probe or guard
    for that one, too.
    """
    logging.basicConfig(format="winnow: %(message)s")
    logging.getLogger("winnow").setLevel(settings.log_level.upper())
    if prompts:
        check_prompts(settings, prompts)
        return
    if settings.load_format == "dummy":
        raise SettingsError(
            "load_format: no checkpoint has these random weights; there is nothing to compare them with"
        )
    from winnow.server.service import started

    with started(settings) as service:
        served = asyncio.run(score_served(service))
    comparisons = asyncio.run(against_references(service, served, reference_dtype))
    print_table(Console(), _table(comparisons))
    if not all(comparison.passes for comparison in comparisons):
        raise CheckFailed(_failure(comparisons))


async def score_served(service: Service) -> list[Served]:
    """Score the example answers with both reward models of a running service, and run the checks of its start.

    Raises:
        CandidateFailed, EngineDead: an engine gave no score.
    """
    prompts = example_prompts(service.template, service.tokenizer)
    scored = []
    for name, model in service.reward_models.items():
        calibration = service.calibration(name)
        logger.info("%s: scoring %d answers on the engine, one by one", name, len(prompts) * len(ANSWERS))
        alone = await _alone(model, prompts, calibration, model.forget_prefixes)
        logger.info("%s: the same answers on the engine, behind cached prefixes, then all at once", name)
        cached = await _alone(model, prompts, calibration)
        together = await _together(model, prompts, calibration)
        failure = await _failed_check(service, name) if service.settings.canary else None
        mass = await _label_mass(model, prompts)
        scored.append(Served(name, model.dtype, alone, cached, together, failure, mass))
    return scored


async def against_references(service: Service, served: Sequence[Served], dtype: Precision) -> list[Comparison]:
    """Compare `served` with the checkpoints of `service`, whose engines may have ended; one is loaded at a time.

    Raises:
        CheckpointError: a reference cannot be loaded.
    """
    # Imports torch, which must not happen before the engines are forked.
    from winnow.models.engines.transformers import reference_of

    device = "cuda" if runs_on_gpu() else "cpu"
    prompts = example_prompts(service.template, service.tokenizer)
    comparisons = []
    for scored in served:
        own = service.scorings[scored.name]
        if own.scorer.remote and not any(own.scorer.folder.glob("*.safetensors")):
            logger.warning("%s: its weights are not here; only alone and batched are compared", scored.name)
            comparisons.append(Comparison(scored, Reference(ITSELF, "its server", scored.alone)))
            continue
        logger.info("%s: loading the reference in %s on %s", scored.name, dtype, device)
        with contextlib.closing(reference_of(own.scorer, own.reader, dtype, device)) as reference:
            logger.info("%s: scoring %d answers with the reference", scored.name, len(prompts) * len(ANSWERS))
            scores = await _alone(reference, prompts, own.calibration)
        comparisons.append(Comparison(scored, Reference(dtype, device, scores)))
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


async def _alone(
    model: RewardModel,
    prompts: Sequence[Prompt],
    calibration: Calibration,
    before: Callable[[], Awaitable[None]] | None = None,
) -> Scores:
    """Return the scores, one after the other; `before` is called before each."""

    async def score(prompt: Prompt, answer: str) -> float:
        if before:
            await before()
        return calibration(await model.score(prompt, answer))

    return [[await score(prompt, answer) for answer in ANSWERS] for prompt in prompts]


async def _together(model: RewardModel, prompts: Sequence[Prompt], calibration: Calibration) -> Scores:
    rows = await asyncio.gather(
        *(asyncio.gather(*(model.score(prompt, answer) for answer in ANSWERS)) for prompt in prompts)
    )
    return [list(map(calibration, row)) for row in rows]


async def _label_mass(model: ServedRewardModel, prompts: Sequence[Prompt]) -> float | None:
    """Return the least probability of the model's two labels over the examples; None if it has no two."""
    found = [await model.label_mass(prompt, answer) for prompt in prompts for answer in ANSWERS]
    return min((mass for mass in found if mass is not None), default=None)


async def _failed_check(service: Service, name: str) -> str | None:
    try:
        await service.require_sound(name)
    except CheckpointError as error:
        return str(error)
    return None


def _failure(comparisons: Sequence[Comparison]) -> str:
    """Return why the check failed, in one line."""
    reasons = []
    if undefined := [comparison.served.name for comparison in comparisons if comparison.is_undefined]:
        reasons.append(
            f"the reference's scores of the {' and '.join(undefined)} model are not all numbers; "
            "try another --reference-dtype"
        )
    if differing := [each.served.name for each in comparisons if each.differs and not each.is_undefined]:
        reasons.append(f"the served scores of the {' and '.join(differing)} model differ from the checkpoint's")
    if constant := [comparison.served.name for comparison in comparisons if comparison.is_constant]:
        reasons.append(f"the checkpoint of the {' and '.join(constant)} model gives every answer the same score")
    reasons += [comparison.served.failure for comparison in comparisons if comparison.served.failure]
    return "; ".join(reasons)


def _share(mass: float | None) -> str:
    return "" if mass is None else f"{100 * mass:.1f} %"


def _table(comparisons: Sequence[Comparison]) -> Table:
    has_labels = any(comparison.served.label_mass is not None for comparison in comparisons)
    count, reference = comparisons[0].count, comparisons[0].reference
    reference = next((one.reference for one in comparisons if not one.is_own_reference), reference)
    against = f"transformers in {reference.dtype} on {reference.device}"
    table = Table(
        "reward model", "served in", "spread", "max |Δ|", "RMS Δ", "tolerance", "by batch", "by cache", "ranks changed",
        *(["labels"] if has_labels else []), "",
        title=f"{count} served rewards of each model against {against}",
    )  # fmt: skip
    if own := [one.served.name for one in comparisons if one.is_own_reference]:
        table.caption = f"Weights not here, so only alone against batched: {', '.join(own)}."
        table.title = table.title if len(own) < len(comparisons) else f"{count} served rewards of each model"
    for comparison in comparisons:
        table.add_row(
            comparison.served.name,
            comparison.served.dtype,
            f"{comparison.spread:.4f}",
            f"{comparison.largest_difference:.6f}",
            f"{comparison.rms_difference:.6f}",
            f"{comparison.tolerance:.4f}",
            f"{comparison.batch_difference:.6f}",
            f"{comparison.cache_difference:.6f}",
            str(comparison.ranks_changed),
            *([_share(comparison.served.label_mass)] if has_labels else []),
            "ok" if comparison.passes else "FAILED",
        )
    return table
