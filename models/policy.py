"""The protocol of a policy, which samples candidates, and the handle on one candidate while it is sampled.

The implementation that serves is `winnow.models.engines.vllm_policy`. Beam search and other non-sampling decoders
are not covered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from winnow.models.sampling import Sampling
from winnow.models.types import Candidate, Prompt


@dataclass(slots=True)
class CandidateHandle:
    """The caller's handle on one candidate that is being sampled: stops it, and reads it at checkpoints.

    `checkpoints` are counts of sampled tokens, ascending, each at least 1. At each one that the
    candidate passes unfinished, `at_checkpoint` is called with its position in `checkpoints` and the
    text so far, and the candidate goes on.
    """

    checkpoints: tuple[int, ...] = ()
    at_checkpoint: Callable[[int, str], None] | None = None
    abort: Callable[[], Awaitable[None]] | None = None
    """Set by the policy: ends the candidate in its engine. None until it has been submitted."""
    is_stopped: bool = False

    async def stop(self) -> None:
        """End the candidate, so that its `sample` raises `CandidateStopped`; no effect on a finished one."""
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

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        """Sample candidate `index` of `prompt`; cancelling the call aborts the candidate, and returns promptly.

        Raises:
            CandidateFailed: the engine could not finish it.
            CandidateStopped: it was stopped through its handle.
            EngineDead: the engine's process has died.
        """
        ...
