"""The memory plan of the settings' engines, for the service and for `winnow plan`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from winnow.models.engines.base import EngineKind
from winnow.models.engines.checkpoint import Kind, describe
from winnow.models.engines.encoder_files import stored_numbers
from winnow.models.engines.environment import may_fork, runs_on_gpu
from winnow.models.engines.hardware import card, first_card, ram
from winnow.models.engines.memory import GIB, NOT_FIXED, Fixed, Memory, MemoryPlan, Resident, Work
from winnow.models.engines.planning import (
    CPU_PROCESS,
    ENCODER_ON_CARD,
    ENCODER_ON_CPU,
    SPAWNED_CPU_PROCESS,
    TYPICAL_ANSWER,
    TYPICAL_PROMPT,
    plan_card,
    plan_policy,
    plan_ram,
)
from winnow.models.engines.scorers import card_of, engine_kind
from winnow.models.engines.shape import BYTES, Model
from winnow.models.errors import DoesNotFit
from winnow.models.reporting.tables import print_table
from winnow.server import cluster_plan
from winnow.server.cluster_plan import ClusterPlan
from winnow.server.engine_options import context_of, execution, needs_card, precision
from winnow.server.settings import PolicySettings, RewardModelSettings, Settings

logger = logging.getLogger(__name__)
_POLICY: Kind = "policy"
_REWARD_MODEL: Kind = "reward model"


def plan(settings: Settings, memory: Memory | None = None) -> MemoryPlan:
    """Plan for the card `memory`; None plans for this machine's card, or for its RAM if it has no card.

    Raises:
        CheckpointError: a checkpoint's config is missing or incomplete, or there is no card.
        DoesNotFit: the engines need more than there is.
    """
    given = True if memory else None
    engines = planned_engines(settings)
    models = [_model(settings, name, engine, given) for name, engine in engines.items()]
    fixed, work = [_part(engine) for engine in engines.values()], _work(settings)
    if not models:
        on_gpu = bool(memory) or needs_card(settings)
        there = memory or (first_card().memory if on_gpu else ram())
        return MemoryPlan(there, (), residents=tuple(_residents(settings, on_gpu=on_gpu)))
    if memory or runs_on_gpu():
        return plan_card(memory or first_card().memory, models, work, fixed, _residents(settings, on_gpu=True))
    process = CPU_PROCESS if may_fork() else SPAWNED_CPU_PROCESS
    return plan_ram(ram(), models, work, fixed, process, _residents(settings, on_gpu=False))


def planned_engines(settings: Settings) -> dict[str, PolicySettings | RewardModelSettings]:
    """Return the engines that take memory of this machine for weights and a KV cache, by name; the policy first."""
    others = {name: own for name, own in settings.distinct_reward_models.items() if _kind(own) == "vllm"}
    policy = {} if settings.policy.is_remote else {"policy": settings.policy}
    return {**policy, **others}


def _residents(settings: Settings, *, on_gpu: bool) -> list[Resident]:
    """Return the reward models that this process will hold."""
    return [
        Resident(
            name,
            dtype := precision(settings, own, on_gpu=on_gpu, kind="transformers"),
            stored_numbers(own.checkpoint) * BYTES[dtype],
            ENCODER_ON_CARD if on_gpu else ENCODER_ON_CPU,
        )
        for name, own in settings.distinct_reward_models.items()
        if _kind(own) == "transformers"
    ]


def _kind(engine: RewardModelSettings) -> EngineKind:
    if engine.is_remote:
        return engine.addresses[0].kind
    return engine_kind(engine.checkpoint, card_of(engine.checkpoint, engine.card))


def engine_parts(settings: Settings) -> dict[str, Fixed]:
    """Return each planned engine's share of the GPU and its KV cache, by name.

    On a GPU, a KV cache of None is what the share leaves once the engine has measured its activations; the policy's
    share is planned again by `policy_part`, once the reward models run. Nothing is planned if the settings give all
    shares. On CPU there are no shares.

    Raises:
        CheckpointError: a checkpoint's config is missing or incomplete, or there is no card.
        DoesNotFit: the engines need more than there is, or their shares are more than a card.
    """
    fixed = {name: _part(engine) for name, engine in planned_engines(settings).items()}
    if not runs_on_gpu():
        planned = plan(settings)
        if planned.is_shrunk:
            logger.warning("smaller KV caches than the engines can use: %s", planned)
        return {engine.model.name: Fixed(engine.kv_cache) for engine in planned.engines}
    shares = [part.share for part in fixed.values() if part.share]
    if len(shares) == len(fixed):
        held = sum(model.held for model in _residents(settings, on_gpu=True))
        left = 1 - held / first_card().memory.total if held else 1.0
        if sum(shares) > left:
            raise DoesNotFit(
                f"the engines' shares (policy_memory, rm_memory) are {sum(shares):g} of the card together; lower them "
                f"until they are at most {left:.3g}"
            )
        return fixed
    planned = plan(settings)
    logger.info("%s", planned)
    return {name: replace(part, share=planned.engine(name).share) for name, part in fixed.items()}


def part_alone(settings: Settings, name: str) -> Fixed:
    """Return the part of the memory for the reward model `name`, where no other engine runs.

    Raises:
        CheckpointError: its config is incomplete, or there is no card.
        DoesNotFit: it needs more than there is.
    """
    own = settings.reward_models[name]
    if _kind(own) != "vllm":
        return NOT_FIXED
    model, part, work = _model(settings, name, own, None), _part(own), _work(settings)
    if runs_on_gpu():
        return replace(part, share=plan_card(first_card().memory, [model], work, [part]).engines[0].share)
    process = CPU_PROCESS if may_fork() else SPAWNED_CPU_PROCESS
    return Fixed(plan_ram(ram(), [model], work, [part], process).engines[0].kv_cache)


def policy_part(settings: Settings, planned: Fixed) -> Fixed:
    """Return the policy's part once the reward models run: on a GPU from what they have left, else as `planned`.

    Raises:
        CheckpointError: the card cannot be read.
        DoesNotFit: the reward models have left too little.
    """
    fixed = _part(settings.policy)
    if not runs_on_gpu() or fixed.share:
        return planned
    model = _model(settings, "policy", settings.policy, None)
    engine = plan_policy(card().memory, model, _work(settings), fixed, _residents(settings, on_gpu=True))
    logger.info("%s; %s", engine.memory, engine.arithmetic)
    return replace(fixed, share=engine.share)


def _model(settings: Settings, name: str, engine: PolicySettings | RewardModelSettings, on_gpu: bool | None) -> Model:
    dtype = precision(settings, engine, on_gpu=on_gpu)
    how = execution(settings, name, on_gpu=runs_on_gpu() if on_gpu is None else on_gpu)
    card, kind = None, _POLICY
    if isinstance(engine, RewardModelSettings):
        card, kind = card_of(engine.checkpoint, engine.card), _REWARD_MODEL
    context = context_of(settings, engine, card)
    model = describe(engine.checkpoint, kind, name, dtype, context, has_graphs=how != "eager")
    return model if settings.tensor_parallel == 1 else model.on_each_of(settings.tensor_parallel)


def _work(settings: Settings) -> Work:
    return Work(settings.max_sequences, settings.max_candidates_in_flight)


def _part(engine: PolicySettings | RewardModelSettings) -> Fixed:
    return Fixed(None if engine.kv_cache_gib is None else int(engine.kv_cache_gib * GIB), engine.memory)


def print_plan(settings: Settings, card_gib: float | None) -> None:
    """Print the plan for a card of `card_gib` GiB; None prints the plan for this machine.

    Raises:
        CheckpointError: a checkpoint's config is missing or incomplete.
        DoesNotFit: the engines need more than there is.
    """
    engines = {"policy": settings.policy, **settings.reward_models}
    elsewhere = [name for name, own in engines.items() if own.is_remote]
    print_table(Console(), table(_planned(settings, card_gib), elsewhere))


def print_cluster(settings: Settings, card_gib: float | None, planned: ClusterPlan) -> None:
    """Print the plan of a cluster whose replicas have cards of `card_gib` GiB each; None: this machine's.

    Raises:
        CheckpointError, DoesNotFit: as `print_plan`.
    """
    memory = _planned(settings, card_gib)
    cards = settings.tensor_parallel if card_gib is not None or runs_on_gpu() else 0
    Console().print(cluster_plan.table(planned, memory, cards))


def _planned(settings: Settings, card_gib: float | None) -> MemoryPlan:
    size = int(card_gib * GIB) if card_gib else None
    cards = settings.tensor_parallel
    name = "the card" if cards == 1 else f"each of {cards} cards"
    return plan(settings, Memory(name, size, size) if size else None)


def table(planned: MemoryPlan, elsewhere: Sequence[str] = ()) -> Table:
    """Return the plan as a table, one engine per row; sizes in GiB. Models `elsewhere` are on other servers."""
    typical = TYPICAL_PROMPT + TYPICAL_ANSWER
    dtypes = [*(engine.model.dtype for engine in planned.engines), *(model.dtype for model in planned.residents)]
    precisions = "/".join(dict.fromkeys(dtypes))
    shown = Table(title=f"{planned.memory}, {precisions}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
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
            f"{engine.candidates(engine.model.context):,}",
            f"{engine.candidates(typical):,}",
        )
    for model in planned.residents:
        weights, overhead, held = (f"{size / GIB:.2f}" for size in (model.weights, model.overhead, model.held))
        shown.add_row(model.name, weights, overhead, "–", held, *"––––")
    shown.caption = (
        "Sizes in GiB. tokens: capacity of the KV cache; full: in sequences of the whole context; "
        f"of {typical}: in candidates of {typical} tokens with nothing shared."
        + (f" On another server, without memory here: {', '.join(elsewhere)}." if elsewhere else "")
    )
    return shown
