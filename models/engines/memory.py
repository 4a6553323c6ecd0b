"""The nouns of a memory plan: memory, load, each engine's part, and why a plan does not fit. Arithmetic only.

The plans themselves are made in `winnow.models.engines.planning`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from winnow.models.engines.shape import Model
from winnow.models.errors import DoesNotFit

GIB = 2**30
MIN_CONTEXT = 128
"""Shortest context that the settings accept."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A card's memory, or the machine's, in bytes; `free` is available now."""

    name: str
    total: int
    free: int

    def __str__(self) -> str:
        return f"{self.name} has {gib(self.total)} ({gib(self.free)} free)"


@dataclass(frozen=True, slots=True)
class Work:
    """The load to plan for: `sequences` at once in each engine, `candidates` in flight over all requests."""

    sequences: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """The operator's settings for one engine: bytes of KV cache, and its share of the card."""

    kv_cache: int | None = None
    share: float | None = None


NOT_FIXED = Fixed()
Models = Sequence[Model]
"""The policy, and the reward models that run on this machine."""
Parts = Sequence[Fixed]
"""One for each of `Models`."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine's part of `memory`, in bytes.

    `activations` count into its share of a card; `uncounted`, the CUDA context and CUDA graphs, does not.
    """

    model: Model
    memory: Memory
    activations: int
    uncounted: int
    kv_cache: int
    fixed_share: float | None = None
    has_fixed_kv_cache: bool = False

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
        overhead = f"{gib(self.overhead)} overhead + " if self.overhead else ""
        return (
            f"{self.model.name}: {gib(self.model.weights)} weights ({self.model.dtype}) + {overhead}"
            f"{gib(self.kv_cache)} KV cache ({self.tokens:,} tokens) = {gib(self.held)}"
        )


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that the server's own process holds, without a share and a KV cache; sizes in bytes."""

    name: str
    dtype: str
    weights: int
    overhead: int

    @property
    def held(self) -> int:
        """All that it holds."""
        return self.weights + self.overhead

    @property
    def arithmetic(self) -> str:
        """The sum in words, for messages and the log."""
        sizes = f"{gib(self.weights)} weights ({self.dtype}) + {gib(self.overhead)} overhead"
        return f"{self.name}: {sizes} = {gib(self.held)}"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The parts of the engines, the policy's first, and the residents; `margin` bytes of a card stay free.

    `is_shrunk` says that KV caches are smaller than the engines can use, for want of free memory.
    """

    memory: Memory
    engines: tuple[EnginePlan, ...]
    margin: int = 0
    is_shrunk: bool = False
    residents: tuple[Resident, ...] = ()

    def __str__(self) -> str:
        return f"{self.memory}; {'; '.join(part.arithmetic for part in self.parts)}"

    @property
    def parts(self) -> tuple[EnginePlan | Resident, ...]:
        """The parts of the engines, and the residents."""
        return (*self.engines, *self.residents)

    @property
    def policy(self) -> EnginePlan:
        """The policy's part."""
        return self.engines[0]

    def engine(self, name: str) -> EnginePlan:
        """Return the part of the engine called `name`."""
        return next(engine for engine in self.engines if engine.model.name == name)

    @property
    def needed(self) -> int:
        """Bytes that the engines and the residents claim, and the margin."""
        claimed = int(sum(engine.claimed for engine in self.engines))
        return claimed + sum(model.held for model in self.residents) + self.margin


def require_one_sequence(engine: EnginePlan, minimum: int) -> None:
    """Check that an engine's KV cache has the `minimum` bytes that one sequence of full length needs.

    Raises:
        DoesNotFit: it has not; the message names the setting.
    """
    if engine.kv_cache >= minimum:
        return
    name, is_reward_model = engine.model.name, engine.model.shape.is_reward_model
    if engine.fixed_share is not None:
        size = gib(int(engine.fixed_share * engine.memory.total))
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


_ENGINES = {1: "engine needs", 2: "two engines need", 3: "three engines need"}


def explain(plan: MemoryPlan) -> str:
    """Return the arithmetic of a plan that does not fit, and what would help, as several lines."""
    margin = [f"  kept free: {gib(plan.margin)}"] if plan.margin else []
    lines = [
        f"the {_ENGINES[len(plan.parts)]} {gib(plan.needed)} at least; {plan.memory}",
        *(f"  {part.arithmetic}" for part in plan.parts),
        *margin,
        f"what would help: {', '.join(_remedies(plan))}",
    ]
    return "\n".join(lines)


def _remedies(plan: MemoryPlan) -> Sequence[str]:
    remedies = []
    is_card = plan.policy.uncounted > 0
    if any(engine.model.dtype == "float32" for engine in plan.engines):
        # Not every card has bfloat16; "auto" knows, but is float32 on CPU.
        remedies.append(f"--dtype {'auto' if is_card else 'bfloat16'}, half of the weights and KV caches")
    if any(engine.fixed_share for engine in plan.engines):
        remedies.append("a smaller policy_memory or rm_memory")
    if any(engine.has_fixed_kv_cache for engine in plan.engines):
        remedies.append("a smaller kv_cache_gib or rm_kv_cache_gib")
    lacking = plan.needed - plan.memory.free
    if shorter := _shorter_context(plan, lacking):
        remedies.append(f"--context {shorter}")
    taken = plan.memory.total - plan.memory.free
    if taken >= lacking:
        remedies.append(f"the {gib(taken)} that other processes hold")
    place = "a card" if is_card else "a machine"
    remedies.append("smaller models")
    if not any(engine.fixed_share for engine in plan.engines):  # shares grow with the card
        needed = (plan.needed - plan.margin) / (1 - plan.margin / plan.memory.total)
        remedies[-1] += f", or {place} with {math.ceil(needed / GIB)} GiB free"
    return remedies


def _shorter_context(plan: MemoryPlan, lacking: int) -> int | None:
    """Return a context for all engines that saves `lacking` bytes of KV cache, and is longer for none; else None."""
    contexts = [engine.context for engine in plan.engines]
    free = [engine.model for engine in plan.engines if not (engine.has_fixed_kv_cache or engine.fixed_share)]
    per_token = sum(model.kv_per_token for model in free)
    held = sum(model.context * model.kv_per_token for model in free)
    shorter = min((held - lacking) // per_token, *contexts) if free else 0
    return shorter // 128 * 128 if MIN_CONTEXT <= shorter < max(contexts) else None


def gib(size: int) -> str:
    """Return a size in GiB, with its unit."""
    return f"{size / GIB:.1f} GiB"
