"""What samples: the protocol of a policy, the sampling parameters, and how candidates get their seeds.

The one real implementation is in `winnow.models.engine`. Beam search and other non-sampling decoders are not covered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from winnow.models.types import Candidate, Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How every candidate of one prompt is sampled; ranges as in the OpenAI API and vLLM.

    `max_tokens` counts sampled tokens, the closing EOS included. `top_k` 0 and `min_p` 0 switch those filters off.
    `seed` None samples unseeded; otherwise candidate k uses `candidate_seed(seed, k)`. `alternatives` asks for the tokens'
    log-probabilities with so many alternatives each, 0 to 20; None asks for none.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    alternatives: int | None = None


@dataclass(slots=True)
class Handle:
    """One candidate under way, in the hands of who asked for it: to be stopped by itself, and to be looked at on the way.

    `checkpoints` are counts of sampled tokens, ascending, each at least 1. At each one that a candidate passes without having ended,
    `at_checkpoint` is called with its position in `checkpoints` and the tokens so far, and the candidate goes on.
    """

    checkpoints: tuple[int, ...] = ()
    at_checkpoint: Callable[[int, tuple[int, ...]], None] | None = None
    abort: Callable[[], Awaitable[None]] | None = None
    """The policy's: ends the candidate in its engine. None before it has got there."""
    is_stopped: bool = False

    async def stop(self) -> None:
        """End the candidate, whose `sample` then raises `CandidateStopped`; what it held is free at once. Too late is no error."""
        self.is_stopped = True
        if self.abort:
            await self.abort()


class Policy(Protocol):
    """Samples answers, one candidate a call, so that each finishes, is scored and is aborted by itself."""

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def vocabulary(self) -> int:
        """Token ids are in [0, vocabulary)."""
        ...

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Handle | None = None) -> Candidate:
        """Sample candidate `index` of `prompt`; cancelling the call aborts the candidate.

        Raises:
            CandidateStopped: it was stopped through its handle.
            EngineDead: the engine's process is gone.
        """
        ...


def candidate_seed(seed: int, index: int) -> int:
    """Derive the seed of candidate `index`, in [0, 2**63), from the request's `seed`.

    Hashed rather than added, so that requests with neighbouring seeds share no candidate.
    """
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
