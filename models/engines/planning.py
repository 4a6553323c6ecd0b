"""Memory plans: engines share one card, or the machine's memory. Arithmetic; nothing is measured.

vLLM takes a share of a card for each engine and checks at the engine's start that this share is free. Engines
start one after another, so each share is what that engine alone will hold: weights, activations and KV cache.
The CUDA context and CUDA graphs come on top: vLLM opens the one before it looks at the free memory, makes the
others after it has filled its share, and counts neither (`winnow.models.engines.environment` keeps later versions
to that). An engine that finds its activations smaller than
estimated here turns the difference into KV cache. The policy starts last, so that its share can be planned anew,
by `plan_policy`, from what the reward models have really left.

On CPU there are no shares. vLLM fills a KV cache with zeros, so that all of it is taken from the start.

Every constant is an estimate, too large rather than too small. Not covered: several cards, quantised
activations or KV caches, and models with layers unlike Llama's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from winnow.models.engines.memory import (
    GIB,
    NOT_FIXED,
    EnginePlan,
    Fixed,
    Memory,
    MemoryPlan,
    Models,
    Parts,
    Resident,
    Work,
    explain,
    gib,
    require_one_sequence,
)
from winnow.models.engines.shape import BYTES, Model
from winnow.models.errors import DoesNotFit

CUDA_CONTEXT = GIB * 5 // 8
"""Memory of a process on a card before its first allocation, the driver's context and the loaded
kernels: 0.4 to 0.5 GiB on data-centre cards, and slightly more with vLLM 0.33."""
WORKSPACE = GIB * 3 // 4
"""Scratch memory of cuBLAS and the attention kernels (0.4 GiB at most), and unused parts of blocks."""
GRAPHS_OF_LAYER, LEAST_GRAPHS = 40 * 2**20, GIB // 4
"""CUDA graphs of an engine, for each layer and in all: 1.2 GiB are reported for 32 layers."""
BATCHED_TOKENS = 2048
"""Tokens of one step, vLLM's default; a whole context where that is more, for a prompt that is not cut."""
LOGIT_COPIES = 6
"""Float32 arrays [sequences, vocabulary] alive at once while sampling: logits, probabilities, a sort's
values and its 8-byte indices."""
BLOCK = 16
"""Tokens of one block of KV cache on CUDA. vLLM keeps one block for itself."""
CPU_BLOCK = 128
"""The same on CPU."""
CPU_SCORING_BLOCK = 32
"""The same of a reward model on CPU, the least that vLLM's attention has there. Each answer ends in a block of its own,
so that larger ones take more memory for nothing."""
CPU_PROCESS = GIB // 2
"""Memory of an engine's process on CPU without weights and KV cache, and a third of the server's: 0.27 to 0.33 GiB and
0.11 GiB were measured."""
SPAWNED_CPU_PROCESS = GIB * 3 // 4
"""The same of a spawned engine, which shares no libraries with the server: 0.65 GiB were measured."""
ENCODER_ON_CARD, ENCODER_ON_CPU = CUDA_CONTEXT + 2 * GIB, GIB // 2
"""Memory of an encoder in the server's process without its weights: a batch's intermediate results above all, and on a
card the CUDA context."""
CPU_KV_CACHE = GIB
"""Largest KV cache of an engine on CPU, unless the operator says otherwise or one sequence needs more."""
MARGIN = 0.02
"""Share of a card that stays free, for fragmentation and for what a display or a monitor takes meanwhile."""
TYPICAL_PROMPT, TYPICAL_ANSWER = 256, 256
"""Tokens of a typical candidate, as plans describe it."""
PROMPT_SHARERS = 8
"""Candidates per prompt, to estimate the prompts that a reward model caches while answers are sampled."""
RM_SHARE_OF_REST = 0.15
"""Largest part of the memory beyond the minimum that a reward model may take, when memory is short."""


def plan_card(
    card: Memory, models: Models, work: Work, fixed: Parts = (), residents: Sequence[Resident] = ()
) -> MemoryPlan:
    """Share a card between engines, the policy's first; what is `fixed` is kept, nothing if it is empty.

    Each gets at least one sequence of full length. A reward model reads a prompt once and then one
    answer after another, so it needs a step's tokens and the prompts in flight, no more; the policy
    gets the rest, as far as it can use it.

    Raises:
        DoesNotFit: the minimum does not fit, or a fixed size does not hold one sequence; the message
            has the arithmetic.
    """
    margin = int(card.total * MARGIN)
    fixed = fixed or [NOT_FIXED] * len(models)
    policy, *reward_models = (_least(card, *part, work) for part in zip(models, fixed, strict=True))
    least = MemoryPlan(card, (policy, *reward_models), margin, residents=tuple(residents))
    rest = card.free - least.needed
    if rest < 0:
        raise DoesNotFit(explain(least))
    most = int(rest * RM_SHARE_OF_REST)
    reward_models = [
        engine if part != NOT_FIXED else _grown(engine, work, most)
        for engine, part in zip(reward_models, fixed[1:], strict=True)
    ]
    grown = replace(least, engines=(policy, *reward_models))
    filled = _filled(policy, card.free - grown.needed, fixed[0], work)
    return replace(grown, engines=(filled, *reward_models))


def plan_policy(
    card: Memory, model: Model, work: Work, fixed: Fixed = NOT_FIXED, residents: Sequence[Resident] = ()
) -> EnginePlan:
    """Give the policy what it can use of a card's free memory, once the reward models run; what is `fixed` is kept.

    The `residents` are loaded after it.

    Raises:
        DoesNotFit: one sequence of full length does not fit; the message has the arithmetic.
    """
    margin = int(card.total * MARGIN)
    least = _least(card, model, fixed, work)
    rest = int(card.free - least.claimed) - margin - sum(resident.held for resident in residents)
    if rest < 0:
        own = "a smaller kv_cache_gib, " if least.has_fixed_kv_cache else ""
        loaded: list[EnginePlan | Resident] = [least, *residents]
        parts = "\n".join(f"  {part.arithmetic}" for part in loaded)
        raise DoesNotFit(
            f"with the reward models running, {card}, and {gib(margin)} stay free, too little for the policy:\n"
            f"{parts}\n"
            f"what would help: {own}a smaller rm_kv_cache_gib or rm_memory, or less memory held by other processes"
        )
    return _filled(least, rest, fixed, work)


def plan_ram(
    ram: Memory,
    models: Models,
    work: Work,
    fixed: Parts = (),
    process: int = CPU_PROCESS,
    residents: Sequence[Resident] = (),
) -> MemoryPlan:
    """Lay engines into the machine's memory, each in a `process` of so many bytes; what is `fixed` is kept.

    Each gets the KV cache that typical requests use, at most `CPU_KV_CACHE`, and less where that is not free: vLLM
    fills a cache with zeros, so all of it is taken from the start. One sequence of full length is the least. Only what
    cannot work is refused: weights that are not free, or engines that exceed the total.

    Raises:
        DoesNotFit: the message has the arithmetic.
    """
    fixed = fixed or [NOT_FIXED] * len(models)
    engines = (_in_ram(ram, *part, work, process) for part in zip(models, fixed, strict=True))
    plan = _shrunk(MemoryPlan(ram, tuple(engines), residents=tuple(residents)), fixed)
    if plan.needed > ram.total or _weights(models) + _weights(residents) > ram.free:
        raise DoesNotFit(explain(plan))
    return plan


def _weights(models: Sequence[Model | Resident]) -> int:
    return sum(model.weights for model in models)


def _filled(policy: EnginePlan, rest: int, fixed: Fixed, work: Work) -> EnginePlan:
    """Return the policy's engine with `rest` more bytes of KV cache, as far as it can use them and nothing is fixed."""
    if fixed != NOT_FIXED:
        return policy
    useful = useful_kv_cache(policy.model, work, BLOCK) - policy.kv_cache
    return replace(policy, kv_cache=policy.kv_cache + max(0, min(rest, useful)))


def _in_ram(ram: Memory, model: Model, fixed: Fixed, work: Work, process: int) -> EnginePlan:
    block = _cpu_block(model)
    least = _one_sequence(model, block)
    useful = min(useful_kv_cache(model, work, block), max(_typical_kv_cache(model, work, block), least))
    wanted = _whole_blocks(min(useful, max(CPU_KV_CACHE, least)), model)
    engine = EnginePlan(model, ram, process, 0, wanted)
    if fixed.kv_cache is not None:
        engine = replace(engine, kv_cache=fixed.kv_cache, has_fixed_kv_cache=True)
    require_one_sequence(engine, least)
    return engine


def _shrunk(plan: MemoryPlan, fixed: Parts) -> MemoryPlan:
    """Return a plan whose caches fit into the free memory, as far as they are not fixed and hold one sequence."""
    excess = plan.needed - min(plan.memory.free, plan.memory.total)
    spare = [
        0 if part.kv_cache else engine.kv_cache - _one_sequence(engine.model, _cpu_block(engine.model))
        for engine, part in zip(plan.engines, fixed, strict=True)
    ]
    if excess <= 0 or not sum(spare):
        return plan
    share = min(1.0, excess / sum(spare))
    engines = (
        replace(engine, kv_cache=_whole_blocks(engine.kv_cache - math.ceil(share * more), engine.model))
        if more
        else engine
        for engine, more in zip(plan.engines, spare, strict=True)
    )
    return replace(plan, engines=tuple(engines), is_shrunk=True)


def _whole_blocks(size: int, model: Model) -> int:
    block = _cpu_block(model) * model.kv_per_token
    return size // block * block


def _cpu_block(model: Model) -> int:
    return CPU_SCORING_BLOCK if model.shape.is_reward_model else CPU_BLOCK


def useful_kv_cache(model: Model, work: Work, block: int) -> int:
    """Return the bytes of KV cache, in blocks of `block` tokens, that an engine can use under the load `work`.

    A policy can use room for each of its sequences at full length. A reward model holds the tokens of one step, where
    each answer ends in a block of its own, and the prompts in flight, so that their answers share them. vLLM keeps one
    block for itself.
    """
    blocks = work.sequences * _blocks(model.context, block)
    if model.shape.is_reward_model:
        step = _blocks(max(BATCHED_TOKENS, model.context), block) + work.sequences
        prompts = math.ceil(work.candidates / PROMPT_SHARERS) * _blocks(TYPICAL_PROMPT, block)
        blocks = min(blocks, step + prompts)
    return (blocks + 1) * block * model.kv_per_token


def _typical_kv_cache(model: Model, work: Work, block: int) -> int:
    """Return the bytes of KV cache of as many typical candidates as an engine has sequences; siblings share a prompt.

    More is only used by many long requests at once. Where it lacks, sequences wait, or are computed anew.
    """
    prompts = math.ceil(work.sequences / PROMPT_SHARERS) * _blocks(TYPICAL_PROMPT, block)
    blocks = work.sequences * _blocks(TYPICAL_ANSWER, block) + prompts
    return (blocks + 1) * block * model.kv_per_token


def _blocks(tokens: int, block: int) -> int:
    return math.ceil(tokens / block)


def _least(card: Memory, model: Model, fixed: Fixed, work: Work) -> EnginePlan:
    """Return the engine with room for one sequence, or with what is fixed."""
    minimum = _one_sequence(model, BLOCK)
    uncounted = CUDA_CONTEXT + _graphs(model)
    engine = EnginePlan(model, card, _activations(model, work), uncounted, minimum, fixed.share)
    if fixed.kv_cache is not None:
        engine = replace(engine, kv_cache=fixed.kv_cache, has_fixed_kv_cache=True)
    elif fixed.share is not None:
        engine = replace(engine, kv_cache=int(fixed.share * card.total) - model.weights - engine.activations)
    require_one_sequence(engine, minimum)
    return engine


def _one_sequence(model: Model, block: int) -> int:
    return (_blocks(model.context, block) + 1) * block * model.kv_per_token


def _activations(model: Model, work: Work) -> int:
    """Return the peak of one step: a layer's intermediate results, and the policy's logits."""
    shape = model.shape
    tokens = max(BATCHED_TOKENS, model.context)
    queries = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    layer = tokens * (4 * shape.hidden + queries + 3 * shape.intermediate) * BYTES[model.dtype]
    logits = 0 if shape.is_reward_model else work.sequences * shape.vocabulary * 4 * LOGIT_COPIES
    return layer + logits + WORKSPACE


def _graphs(model: Model) -> int:
    return max(LEAST_GRAPHS, model.shape.layers * GRAPHS_OF_LAYER) if model.has_graphs else 0


def _grown(engine: EnginePlan, work: Work, most: int) -> EnginePlan:
    """Return a reward model's engine with the KV cache it can use, at most `most` bytes more than now."""
    tokens = max(BATCHED_TOKENS, engine.context) + work.candidates * TYPICAL_PROMPT // PROMPT_SHARERS
    useful = min(tokens * engine.model.kv_per_token, useful_kv_cache(engine.model, work, BLOCK))
    more = max(0, useful - engine.kv_cache)
    return replace(engine, kv_cache=engine.kv_cache + min(more, most))
