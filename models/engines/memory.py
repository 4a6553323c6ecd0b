"""The memory plan: three engines share one card, or the machine's memory. Arithmetic; nothing is measured.

vLLM takes a share of a card for each engine and checks at the engine's start that this share is free. Engines
start one after another, so each share is what that engine alone will hold: weights, activations and KV cache.
The CUDA context comes on top: vLLM opens it before it looks at the free memory, and does not count it. An
engine that finds its activations smaller than estimated here turns the difference into KV cache.

Every constant is an estimate, too large rather than too small. Not covered: several cards, quantised
activations or KV caches, and models with layers unlike Llama's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from winnow.models.engines.shape import BYTES, Model
from winnow.models.errors import DoesNotFit

GIB = 2**30

CUDA_CONTEXT = GIB // 2
"""Memory of a process on a card before its first allocation, the driver's context and the loaded
kernels: 0.4 to 0.5 GiB on data-centre cards."""
WORKSPACE = GIB * 3 // 4
"""Scratch memory of cuBLAS and the attention kernels (0.4 GiB at most), and unused parts of blocks."""
GRAPHS = GIB
"""CUDA graphs of a compiled engine."""
BATCHED_TOKENS = 2048
"""Tokens of one step, vLLM's default; a whole context where that is more, for a prompt that is not cut."""
LOGIT_COPIES = 6
"""Float32 arrays [sequences, vocabulary] alive at once while sampling: logits, probabilities, a sort's
values and its 8-byte indices."""
BLOCK = 16
"""Tokens of one block of KV cache on CUDA. vLLM keeps one block for itself."""
MARGIN = 0.02
"""Share of a card that stays free, for fragmentation and for what a display or a monitor takes meanwhile."""
TYPICAL_PROMPT, TYPICAL_ANSWER = 256, 256
"""Tokens of a typical candidate, as plans describe it."""
PROMPT_SHARERS = 8
"""Candidates per prompt, to estimate the prompts that a reward model caches while answers are sampled."""
RM_SHARE_OF_REST = 0.15
"""Largest part of the memory beyond the minimum that a reward model may take, when memory is short."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A card's memory, or the machine's, in bytes; `free` is available now."""

    name: str
    total: int
    free: int

    def __str__(self) -> str:
        return f"{self.name} has {_gib(self.total)} ({_gib(self.free)} free)"


@dataclass(frozen=True, slots=True)
class Work:
    """The load to plan for: `sequences` at once in each engine, `candidates` in flight over all requests."""

    sequences: int
    candidates: int
    eager: bool


@dataclass(frozen=True, slots=True)
class Fixed:
    """The operator's settings for one engine: bytes of KV cache, and its share of the card."""

    kv_cache: int | None = None
    share: float | None = None


NOT_FIXED = Fixed()
Models = tuple[Model, Model, Model]
"""The policy, the safety and the helpfulness model, in the order in which they start."""
Parts = tuple[Fixed, Fixed, Fixed]
"""One for each of `Models`."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine's part of `memory`, in bytes.

    `activations` count into its share of a card; `uncounted`, the CUDA context, does not.
    """

    model: Model
    memory: Memory
    activations: int
    uncounted: int
    kv_cache: int
    fixed_share: float | None = None

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        return self.model.context

    @property
    def overhead(self) -> int:
        """Everything but weights and KV cache."""
        return self.activations + self.uncounted

    @property
    def held(self) -> int:
        """All that the engine holds."""
        return self.model.weights + self.overhead + self.kv_cache

    @property
    def share(self) -> float:
        """vLLM's `gpu_memory_utilization`."""
        return self.fixed_share or (self.held - self.uncounted) / self.memory.total

    @property
    def claimed(self) -> float:
        """Memory that must be free when the engine starts."""
        return max(self.share * self.memory.total + self.uncounted, self.held)

    @property
    def tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.kv_cache // self.model.kv_per_token

    def candidates(self, tokens: int) -> int:
        """Return the number of sequences of `tokens` tokens that the KV cache holds, nothing shared."""
        return self.tokens // tokens

    @property
    def arithmetic(self) -> str:
        """The sum in words, for messages and the log."""
        overhead = f"{_gib(self.overhead)} overhead + " if self.overhead else ""
        return (
            f"{self.model.name}: {_gib(self.model.weights)} weights ({self.model.dtype}) + {overhead}"
            f"{_gib(self.kv_cache)} KV cache ({self.tokens:,} tokens) = {_gib(self.held)}"
        )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The parts of the three engines; `margin` bytes of a card stay free."""

    memory: Memory
    policy: EnginePlan
    safety: EnginePlan
    helpfulness: EnginePlan
    margin: int = 0

    @property
    def engines(self) -> tuple[EnginePlan, EnginePlan, EnginePlan]:
        """The engines in the order in which they start."""
        return self.policy, self.safety, self.helpfulness

    @property
    def needed(self) -> int:
        """Bytes that the engines claim, and the margin."""
        return int(sum(engine.claimed for engine in self.engines)) + self.margin


def plan_card(card: Memory, models: Models, work: Work, fixed: Parts = (NOT_FIXED, NOT_FIXED, NOT_FIXED)) -> MemoryPlan:
    """Share a card between three engines; what is `fixed` is kept.

    Each gets at least one sequence of full length. A reward model reads a prompt once and then one
    answer after another, so it needs a step's tokens and the prompts in flight, no more; the policy
    gets the rest.

    Raises:
        DoesNotFit: the minimum does not fit, or a fixed size does not hold one sequence; the message
            has the arithmetic.
    """
    margin = int(card.total * MARGIN)
    policy, safety, helpfulness = (_least(card, *part, work) for part in zip(models, fixed, strict=True))
    least = MemoryPlan(card, policy, safety, helpfulness, margin)
    rest = card.free - least.needed
    if rest < 0:
        raise DoesNotFit(_explain(least))
    most = int(rest * RM_SHARE_OF_REST)
    safety, helpfulness = (
        engine if part != NOT_FIXED else _grown(engine, work, most)
        for engine, part in zip((safety, helpfulness), fixed[1:], strict=True)
    )
    grown = replace(least, safety=safety, helpfulness=helpfulness)
    if fixed[0] == NOT_FIXED:
        rest = card.free - grown.needed
        grown = replace(grown, policy=replace(grown.policy, kv_cache=grown.policy.kv_cache + max(0, rest)))
    return grown


def plan_ram(ram: Memory, models: Models, kv_caches: tuple[int, int, int]) -> MemoryPlan:
    """Lay three engines with KV caches of `kv_caches` bytes into the machine's memory.

    Refuses only what cannot work. An untouched KV cache takes no memory yet, so only the weights must
    be free at the start; everything together must fit the total.

    Raises:
        DoesNotFit: the message has the arithmetic.
    """
    policy, safety, helpfulness = (
        EnginePlan(model, ram, 0, 0, kv_cache) for model, kv_cache in zip(models, kv_caches, strict=True)
    )
    plan = MemoryPlan(ram, policy, safety, helpfulness)
    if plan.needed > ram.total or sum(model.weights for model in models) > ram.free:
        raise DoesNotFit(_explain(plan))
    for engine in plan.engines:
        _require_one_sequence(engine, engine.context * engine.model.kv_per_token)
    return plan


def _least(card: Memory, model: Model, fixed: Fixed, work: Work) -> EnginePlan:
    """Return the engine with room for one sequence, or with what is fixed."""
    minimum = _one_sequence(model)
    engine = EnginePlan(model, card, _activations(model, work), CUDA_CONTEXT, minimum, fixed.share)
    if fixed.kv_cache is not None:
        engine = replace(engine, kv_cache=fixed.kv_cache)
    elif fixed.share is not None:
        engine = replace(engine, kv_cache=int(fixed.share * card.total) - model.weights - engine.activations)
    _require_one_sequence(engine, minimum)
    return engine


def _one_sequence(model: Model) -> int:
    blocks = -(-model.context // BLOCK) + 1
    return blocks * BLOCK * model.kv_per_token


def _activations(model: Model, work: Work) -> int:
    """Return the peak of one step: a layer's intermediate results, and the policy's logits."""
    shape = model.shape
    tokens = max(BATCHED_TOKENS, model.context)
    queries = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    layer = tokens * (4 * shape.hidden + queries + 3 * shape.intermediate) * BYTES[model.dtype]
    logits = 0 if shape.is_reward_model else work.sequences * shape.vocabulary * 4 * LOGIT_COPIES
    return layer + logits + WORKSPACE + (0 if work.eager else GRAPHS)


def _grown(engine: EnginePlan, work: Work, most: int) -> EnginePlan:
    """Return a reward model's engine with the KV cache it can use, at most `most` bytes more than now."""
    useful = max(BATCHED_TOKENS, engine.context) + work.candidates * TYPICAL_PROMPT // PROMPT_SHARERS
    more = max(0, useful * engine.model.kv_per_token - engine.kv_cache)
    return replace(engine, kv_cache=engine.kv_cache + min(more, most))


def _require_one_sequence(engine: EnginePlan, minimum: int) -> None:
    if engine.kv_cache >= minimum:
        return
    name, is_reward_model = engine.model.name, engine.model.shape.is_reward_model
    if engine.fixed_share is not None:
        size = _gib(int(engine.fixed_share * engine.memory.total))
        flag = "rm_memory" if is_reward_model else "policy_memory"
        limit = f"{name}.memory ({flag}) {engine.fixed_share:g} is {size}"
    else:
        flag = "rm_kv_cache_gib" if is_reward_model else "kv_cache_gib"
        limit = f"{name}.kv_cache_gib ({flag}) is {engine.kv_cache / GIB:.1f}"
    raise DoesNotFit(
        f"{limit}, too little for one sequence of {engine.context:,} tokens, which needs\n"
        f"  {replace(engine, kv_cache=minimum).arithmetic}\n"
        "what would help: more of it, or a shorter context"
    )


def _explain(plan: MemoryPlan) -> str:
    margin = [f"  kept free: {_gib(plan.margin)}"] if plan.margin else []
    lines = [
        f"the three engines need {_gib(plan.needed)} at least; {plan.memory}",
        *(f"  {engine.arithmetic}" for engine in plan.engines),
        *margin,
        f"what would help: {', '.join(_remedies(plan))}",
    ]
    return "\n".join(lines)


def _remedies(plan: MemoryPlan) -> Sequence[str]:
    remedies = []
    if any(engine.model.dtype == "float32" for engine in plan.engines):
        remedies.append("--dtype bfloat16, half of everything")
    lacking = plan.needed - plan.memory.free
    context = plan.policy.context
    shorter = context - -(-lacking // sum(engine.model.kv_per_token for engine in plan.engines)) - BLOCK
    if 128 <= shorter < context:
        remedies.append(f"--context {shorter // 128 * 128}")
    taken = plan.memory.total - plan.memory.free
    if taken >= lacking:
        remedies.append(f"the {_gib(taken)} that other processes hold")
    place = "a card" if plan.policy.uncounted else "a machine"
    remedies.append(f"smaller models, or {place} with {-(-plan.needed // GIB)} GiB free")
    return remedies


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
