"""How three engines share one memory: a card's, or the machine's. Arithmetic over shapes; nothing is measured here.

vLLM takes a share of a card for each engine, and checks at the engine's start that so much is free. Engines start one after
another, so each share is what that engine alone will hold: weights, activations and KV cache. The CUDA context comes on top:
vLLM opens it before it looks at what is free, and does not count it. An engine that finds its activations smaller than
estimated here makes KV cache of the difference.

Every constant is an estimate, meant to be too large rather than too small. What it does not cover: several cards, quantised
activations or KV caches, and models with other layers than Llama's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from winnow.models.errors import CheckpointError, DoesNotFit

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number in each precision."""

CUDA_CONTEXT = GIB // 2
"""What a process holds on a card before it has allocated anything: the driver's context and the loaded kernels, 0.4 to 0.5 GiB on
data-centre cards."""
WORKSPACE = GIB * 3 // 4
"""Scratch memory of cuBLAS and the attention kernels (some 0.4 GiB at most) and what the allocator's blocks leave unused."""
GRAPHS = GIB
"""CUDA graphs of a compiled engine."""
BATCHED_TOKENS = 2048
"""Tokens of one step, vLLM's own default; a whole context where that is more, for a prompt that is not cut."""
LOGIT_COPIES = 6
"""Float32 arrays [sequences, vocabulary] alive at once while sampling: logits, probabilities, and a sort's values and 8-byte indices."""
BLOCK = 16
"""Tokens of one block of KV cache on CUDA. One block is vLLM's own."""
MARGIN = 0.02
"""Share of a card that is given to nobody: fragments, and what a display or a monitor takes meanwhile."""
TYPICAL_PROMPT, TYPICAL_ANSWER = 256, 256
"""Tokens of a candidate as plans describe it."""
PROMPT_SHARERS = 8
"""Candidates that share a prompt, for the prompts that a reward model keeps while their answers are still written."""
RM_SHARE_OF_REST = 0.15
"""Most of what is left beyond the least that a reward model may take, when memory is short."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's sizes, as its config.json has them; `heads` of them query, `kv_heads` of them are cached."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    is_tied: bool = False
    """Whether the output matrix is the input embedding."""
    is_reward_model: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read a config.json.

        Raises:
            CheckpointError: a size is missing or is no positive number.
        """

        def size(name: str, otherwise: int | None = None) -> int:
            value = config.get(name) or otherwise
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(f"config.json: {name} is {value!r}, not a number from 1")
            return value

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        return cls(
            hidden=hidden,
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", max(1, hidden // heads)),
            intermediate=size("intermediate_size"),
            vocabulary=size("vocab_size"),
            context=size("max_position_embeddings", 2048),
            is_tied=bool(config.get("tie_word_embeddings")),
            is_reward_model="LlamaForSequenceClassification" in (config.get("architectures") or ()),
        )

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embedding = self.vocabulary * self.hidden
        head = self.hidden if self.is_reward_model else 0 if self.is_tied else embedding
        return embedding + self.layers * layer + self.hidden + head

    @property
    def cached(self) -> int:
        """Numbers in the KV cache for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Model:
    """What one engine loads: `weights` are bytes in the precision `dtype` that it computes in."""

    name: str
    shape: Shape
    dtype: str
    weights: int

    @property
    def kv_per_token(self) -> int:
        """Bytes of KV cache for one token."""
        return self.shape.cached * BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Memory:
    """A card's memory, or the machine's, in bytes; `free` is what can be had now."""

    name: str
    total: int
    free: int

    def __str__(self) -> str:
        return f"{self.name} has {_gib(self.total)} ({_gib(self.free)} free)"


@dataclass(frozen=True, slots=True)
class Work:
    """What the engines have to hold: `context` tokens (None: each model's own), `sequences` at once in each engine, `candidates` in all."""

    context: int | None
    sequences: int
    candidates: int
    eager: bool

    def context_of(self, shape: Shape) -> int:
        """Tokens of the longest sequence."""
        return self.context or shape.context


@dataclass(frozen=True, slots=True)
class Fixed:
    """What is fixed for an engine, by the operator or by a plan: bytes of KV cache, and its share of the card."""

    kv_cache: int | None = None
    share: float | None = None


NOT_FIXED = Fixed()


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine's part, in bytes. `activations` count into its share of the memory `of`, `beside` (the CUDA context) does not."""

    model: Model
    of: Memory
    context: int
    activations: int
    beside: int
    kv_cache: int
    fixed_share: float | None = None

    @property
    def overhead(self) -> int:
        """Everything but weights and KV cache."""
        return self.activations + self.beside

    @property
    def held(self) -> int:
        """All that the engine holds."""
        return self.model.weights + self.overhead + self.kv_cache

    @property
    def share(self) -> float:
        """vLLM's `gpu_memory_utilization`."""
        return self.fixed_share or (self.held - self.beside) / self.of.total

    @property
    def claimed(self) -> float:
        """What has to be free when the engine starts."""
        return max(self.share * self.of.total + self.beside, self.held)

    @property
    def tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.kv_cache // self.model.kv_per_token

    def candidates(self, tokens: int) -> int:
        """Sequences of so many tokens that the KV cache holds, nothing shared between them."""
        return self.tokens // tokens

    @property
    def sum(self) -> str:
        """The arithmetic in words."""
        overhead = f"{_gib(self.overhead)} overhead + " if self.overhead else ""
        return (
            f"{self.model.name}: {_gib(self.model.weights)} weights ({self.model.dtype}) + {overhead}"
            f"{_gib(self.kv_cache)} KV cache ({self.tokens:,} tokens) = {_gib(self.held)}"
        )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Who holds what. On a card `margin` bytes are given to nobody."""

    memory: Memory
    policy: EnginePlan
    safety: EnginePlan
    helpfulness: EnginePlan
    margin: int = 0

    @property
    def engines(self) -> tuple[EnginePlan, EnginePlan, EnginePlan]:
        """In the order in which they start."""
        return self.policy, self.safety, self.helpfulness

    @property
    def needed(self) -> int:
        """What the engines claim, and the margin."""
        return int(sum(engine.claimed for engine in self.engines)) + self.margin


Models = tuple[Model, Model, Model]
"""The policy, the safety and the helpfulness model."""


def plan_card(card: Memory, models: Models, work: Work, policy: Fixed = NOT_FIXED, rm: Fixed = NOT_FIXED) -> MemoryPlan:
    """Share a card between three engines; what `policy` and `rm` fix is kept.

    Each gets at least one sequence of full length. A reward model reads a prompt once and then one answer after another, so it wants
    a step's tokens and the prompts in flight, no more; the policy gets the rest.

    Raises:
        DoesNotFit: the least does not fit, or what is fixed does not hold one sequence; the message has the arithmetic.
    """
    margin = int(card.total * MARGIN)
    parts = [_least(card, model, work, fixed) for model, fixed in zip(models, (policy, rm, rm), strict=True)]
    least = MemoryPlan(card, parts[0], parts[1], parts[2], margin)
    rest = card.free - least.needed
    if rest < 0:
        raise DoesNotFit(_explain(least))
    safety, helpfulness = (_grown(engine, work, rm, int(rest * RM_SHARE_OF_REST)) for engine in least.engines[1:])
    grown = replace(least, safety=safety, helpfulness=helpfulness)
    if policy == NOT_FIXED:
        rest = card.free - grown.needed
        grown = replace(grown, policy=replace(grown.policy, kv_cache=grown.policy.kv_cache + max(0, rest)))
    return grown


def plan_ram(ram: Memory, models: Models, work: Work, kv_caches: tuple[int, int, int]) -> MemoryPlan:
    """Lay three engines of fixed KV caches into the machine's memory.

    Refuses only what cannot work: an untouched KV cache takes no memory yet, so only the weights must be free at the start; all
    together must be there at all.

    Raises:
        DoesNotFit: the message has the arithmetic.
    """
    engines = [
        EnginePlan(model, ram, work.context_of(model.shape), 0, 0, kv_cache)
        for model, kv_cache in zip(models, kv_caches, strict=True)
    ]
    plan = MemoryPlan(ram, engines[0], engines[1], engines[2])
    if plan.needed > ram.total or sum(model.weights for model in models) > ram.free:
        raise DoesNotFit(_explain(plan))
    for engine in engines:
        _require_one_sequence(engine, engine.context * engine.model.kv_per_token)
    return plan


def _least(card: Memory, model: Model, work: Work, fixed: Fixed) -> EnginePlan:
    """The engine with room for one sequence, or with what is fixed."""
    context = work.context_of(model.shape)
    minimum = _one_sequence(model, context)
    engine = EnginePlan(model, card, context, _activations(model, work), CUDA_CONTEXT, minimum, fixed.share)
    if fixed.kv_cache is not None:
        engine = replace(engine, kv_cache=fixed.kv_cache)
    elif fixed.share is not None:
        engine = replace(engine, kv_cache=int(fixed.share * card.total) - model.weights - engine.activations)
    _require_one_sequence(engine, minimum)
    return engine


def _one_sequence(model: Model, context: int) -> int:
    blocks = -(-context // BLOCK) + 1
    return blocks * BLOCK * model.kv_per_token


def _require_one_sequence(engine: EnginePlan, minimum: int) -> None:
    if engine.kv_cache >= minimum:
        return
    owner = "rm" if engine.model.shape.is_reward_model else "policy"
    if engine.fixed_share is not None:
        limit = f"{owner}_memory {engine.fixed_share:g} is {_gib(int(engine.fixed_share * engine.of.total))}"
    else:
        limit = f"{'rm_' * (owner == 'rm')}kv_cache_gib is {engine.kv_cache / GIB:.1f}"
    raise DoesNotFit(
        f"{limit}, too little for one sequence of {engine.context:,} tokens, which needs\n"
        f"  {replace(engine, kv_cache=minimum).sum}\n"
        "what would help: more of it, or a shorter context"
    )


def _activations(model: Model, work: Work) -> int:
    """The peak of one step beside weights and KV cache: a layer's intermediate results, and the policy's logits."""
    shape = model.shape
    tokens = max(BATCHED_TOKENS, work.context_of(shape))
    queries = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    layer = tokens * (4 * shape.hidden + queries + 3 * shape.intermediate) * BYTES[model.dtype]
    logits = 0 if shape.is_reward_model else work.sequences * shape.vocabulary * 4 * LOGIT_COPIES
    return layer + logits + WORKSPACE + (0 if work.eager else GRAPHS)


def _grown(engine: EnginePlan, work: Work, fixed: Fixed, most: int) -> EnginePlan:
    """A reward model with the KV cache it wants, as far as it may; unchanged if the operator has fixed it."""
    if fixed != NOT_FIXED:
        return engine
    wanted = max(BATCHED_TOKENS, engine.context) + work.candidates * TYPICAL_PROMPT // PROMPT_SHARERS
    more = max(0, wanted * engine.model.kv_per_token - engine.kv_cache)
    return replace(engine, kv_cache=engine.kv_cache + min(more, most))


def _explain(plan: MemoryPlan) -> str:
    margin = [f"  kept free: {_gib(plan.margin)}"] if plan.margin else []
    lines = [
        f"the three engines need {_gib(plan.needed)} at least; {plan.memory}",
        *(f"  {engine.sum}" for engine in plan.engines),
        *margin,
        f"what would help: {', '.join(_remedies(plan))}",
    ]
    return "\n".join(lines)


def _remedies(plan: MemoryPlan) -> Sequence[str]:
    remedies = []
    if any(engine.model.dtype == "float32" for engine in plan.engines):
        remedies.append("--dtype bfloat16, half of everything")
    lacking = plan.needed - plan.memory.free
    shorter = plan.policy.context - -(-lacking // sum(engine.model.kv_per_token for engine in plan.engines)) - BLOCK
    if 128 <= shorter < plan.policy.context:
        remedies.append(f"--context {shorter // 128 * 128}")
    taken = plan.memory.total - plan.memory.free
    if taken >= lacking:
        remedies.append(f"the {_gib(taken)} that other processes hold")
    place = "a card" if plan.policy.beside else "a machine"
    remedies.append(f"smaller models, or {place} with {-(-plan.needed // GIB)} GiB free")
    return remedies


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
