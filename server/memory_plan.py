"""Who gets how much memory: the settings' three models through `winnow.models.engines.memory`, for the service and `winnow plan`."""

from __future__ import annotations

import logging
from typing import overload

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from winnow.models.engines.checkpoint import describe
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.engines.hardware import card, ram
from winnow.models.engines.memory import (
    GIB,
    TYPICAL_ANSWER,
    TYPICAL_PROMPT,
    Fixed,
    Memory,
    MemoryPlan,
    Models,
    Work,
    plan_card,
    plan_ram,
)
from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

CPU_KV_CACHE_GIB = 1.0
"""KV cache of an engine on CPU, where the settings name none."""


def precision(settings: Settings, *, on_gpu: bool | None = None) -> str:
    """What the engines compute in, on a GPU or not; None: where they run here."""
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if (runs_on_gpu() if on_gpu is None else on_gpu) else "float32"


def plan(settings: Settings, memory: Memory | None = None) -> MemoryPlan:
    """Plan for the card `memory`; None plans for where the engines run: this machine's card, or its memory without one.

    Raises:
        CheckpointError: a checkpoint has no sound config, or there is no card.
        DoesNotFit: the engines need more than there is.
    """
    if memory is None and not runs_on_gpu():
        policy = _bytes(settings.kv_cache_gib or CPU_KV_CACHE_GIB)
        rm = _bytes(settings.rm_kv_cache_gib or CPU_KV_CACHE_GIB)
        return plan_ram(ram(), _models(settings, on_gpu=False), _work(settings), (policy, rm, rm))
    return plan_card(
        memory or card(),
        _models(settings, on_gpu=True),
        _work(settings),
        policy=Fixed(_bytes(settings.kv_cache_gib), settings.policy_memory),
        rm=Fixed(_bytes(settings.rm_kv_cache_gib), settings.rm_memory),
    )


def parts(settings: Settings) -> tuple[Fixed, Fixed, Fixed]:
    """What each engine is told when it starts, in their order: its share of a GPU, and its KV cache where that is fixed.

    An engine without a fixed KV cache makes one of what its share leaves, once it has seen what its activations take. If both shares
    are set, nothing is planned.

    Raises:
        CheckpointError: a checkpoint has no sound config, or there is no card.
        DoesNotFit: the engines need more than there is.
    """
    if not runs_on_gpu():
        policy, safety, helpfulness = plan(settings).engines
        return Fixed(policy.kv_cache), Fixed(safety.kv_cache), Fixed(helpfulness.kv_cache)
    policy_kv, rm_kv = _bytes(settings.kv_cache_gib), _bytes(settings.rm_kv_cache_gib)
    if settings.policy_memory and settings.rm_memory:
        rm = Fixed(rm_kv, settings.rm_memory)
        return Fixed(policy_kv, settings.policy_memory), rm, rm
    planned = plan(settings)
    logger.info("%s; %s", planned.memory, "; ".join(engine.sum for engine in planned.engines))
    policy, safety, helpfulness = planned.engines
    return Fixed(policy_kv, policy.share), Fixed(rm_kv, safety.share), Fixed(rm_kv, helpfulness.share)


@overload
def _bytes(gib: float) -> int: ...
@overload
def _bytes(gib: float | None) -> int | None: ...
def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)


def _models(settings: Settings, *, on_gpu: bool) -> Models:
    dtype = precision(settings, on_gpu=on_gpu)
    return (
        describe(settings.policy, "policy", "policy", dtype),
        describe(settings.safety_rm, "reward model", "safety", dtype),
        describe(settings.helpfulness_rm, "reward model", "helpfulness", dtype),
    )


def _work(settings: Settings) -> Work:
    return Work(settings.context, settings.max_sequences, settings.max_candidates_in_flight, settings.eager)


def print_plan(settings: Settings, card_gib: float | None) -> None:
    """Print who gets what of a card of `card_gib` GiB, of this machine's card, or of its memory.

    Raises:
        CheckpointError: a checkpoint has no sound config.
        DoesNotFit: the engines need more than there is.
    """
    size = _bytes(card_gib)
    planned = plan(settings, Memory("the card", size, size) if size else None)
    Console().print(table(planned))


def table(planned: MemoryPlan) -> Table:
    """The plan, one engine a row; sizes in GiB."""
    typical = TYPICAL_PROMPT + TYPICAL_ANSWER
    shown = Table(title=f"{planned.memory}, {planned.policy.model.dtype}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("engine")
    for heading in ("weights", "overhead", "KV", "all", "share", "tokens", "full", f"of {typical}"):
        shown.add_column(heading, justify="right")
    for engine in planned.engines:
        sizes = (engine.model.weights, engine.overhead, engine.kv_cache, engine.held)
        shown.add_row(
            engine.model.name,
            *(f"{size / GIB:.2f}" for size in sizes),
            f"{engine.share:.3f}",
            f"{engine.tokens:,}",
            f"{engine.candidates(engine.context):,}",
            f"{engine.candidates(typical):,}",
        )
    shown.caption = f"In GiB. The KV cache holds so many tokens: full contexts, or candidates of {typical} tokens that share nothing."
    return shown
