"""Scripted stand-ins for the expensive protocols, for faults that a real engine cannot be made to show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from winnow.models.policy import Sampling
from winnow.models.types import Candidate, Prompt


def candidate(index: int, ids: Sequence[int] = (7,), text: str = "") -> Candidate:
    return Candidate(index, tuple(ids), text or f"answer {index}", "stop", len(ids) + 1)


@dataclass
class ScriptedPolicy:
    """Answers candidate k with the ids that `answers(k)` gives, or raises what it raises."""

    answers: Callable[[int], Sequence[int]]
    context: int = 2048
    vocabulary: int = 1000
    running: set[int] = field(default_factory=set)
    hold: asyncio.Event | None = None

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int) -> Candidate:
        self.running.add(index)
        try:
            if self.hold:
                await self.hold.wait()
            return candidate(index, self.answers(index))
        finally:
            self.running.discard(index)


@dataclass
class ScriptedRewardModel:
    """Scores an answer by its ids and counts the calls."""

    logit: Callable[[tuple[int, ...]], float]
    calls: int = 0

    async def score(self, prompt: Prompt, answer_ids: Sequence[int]) -> float:
        self.calls += 1
        await asyncio.sleep(0)
        return self.logit(tuple(answer_ids))
