"""Scripted stand-ins for the expensive protocols, for faults that a real engine cannot be made to show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from winnow.models.sampling import Handle, Sampling
from winnow.models.types import Candidate, Prompt


def candidate(index: int, ids: Sequence[int] = (7,), text: str = "") -> Candidate:
    return Candidate(index, tuple(ids), text or f"answer {index}", "stop", len(ids) + 1)


@dataclass(kw_only=True)
class ScriptedEngine:
    """What every engine tells of itself; a test sets it to what the fault looks like."""

    context: int = 2048
    is_alive: bool = True
    unfinished: int = 0
    dtype: str = "float32"
    stuck: bool = False

    async def is_stuck(self, seconds: float) -> bool:
        return self.stuck


@dataclass
class ScriptedPolicy(ScriptedEngine):
    """Answers candidate k with the ids that `answers(k)` gives, or raises what it raises; all wait for `hold`."""

    answers: Callable[[int], Sequence[int]] = lambda index: (7, index)
    vocabulary: int = 2048
    running: set[int] = field(default_factory=set)
    hold: asyncio.Event | None = None

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Handle | None = None) -> Candidate:
        self.running.add(index)
        try:
            if self.hold:
                await self.hold.wait()
            return candidate(index, self.answers(index))
        finally:
            self.running.discard(index)


@dataclass
class ScriptedRewardModel(ScriptedEngine):
    """Scores an answer by its ids and counts the calls; all wait for `hold`."""

    logit: Callable[[tuple[int, ...]], float] = lambda ids: float(sum(ids) % 7 - 3)
    calls: int = 0
    hold: asyncio.Event | None = None

    async def score(self, prompt: Prompt, answer_ids: Sequence[int]) -> float:
        self.calls += 1
        await (self.hold.wait() if self.hold else asyncio.sleep(0))
        return self.logit(tuple(answer_ids))
