"""Scripted stand-ins for the expensive protocols, for faults that a real engine cannot be made to show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt


def text_of(ids: Sequence[int]) -> str:
    """The text of a scripted answer that consists of `ids`; see `ids_of`."""
    return f"answer {' '.join(map(str, ids))}"


def ids_of(text: str) -> tuple[int, ...]:
    """The ids of a scripted answer; of any other text its bytes."""
    words = text.split()
    if words[:1] == ["answer"] and all(word.isdecimal() for word in words[1:]):
        return tuple(map(int, words[1:]))
    return tuple(text.encode())


def candidate(index: int, ids: Sequence[int] = (7,), text: str = "") -> Candidate:
    return Candidate(index, text or text_of(ids), "stop", len(ids) + 1)


@dataclass(kw_only=True)
class ScriptedEngine:
    """The status of an engine; a test sets it to what a fault looks like."""

    context: int = 2048
    is_alive: bool = True
    unfinished: int = 0
    dtype: str = "float32"
    stuck: bool = False

    async def is_stuck(self, seconds: float) -> bool:
        return self.stuck

    def shutdown(self) -> None:
        self.is_alive = False


@dataclass
class ScriptedPolicy(ScriptedEngine):
    """Answers candidate k with the ids that `answers(k)` returns, or raises its exception; all wait for `hold`."""

    answers: Callable[[int], Sequence[int]] = lambda index: (index,)
    vocabulary: int = 2048
    running: set[int] = field(default_factory=set)
    hold: asyncio.Event | None = None
    see: Callable[[Sampling], object] = lambda sampling: None

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        self.running.add(index)
        self.see(sampling)
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
    forgotten: int = 0
    hold: asyncio.Event | None = None

    async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
        return None

    async def forget_prefixes(self) -> None:
        self.forgotten += 1

    async def verdict(self, prompt: Prompt) -> float:
        return await self.score(prompt, prompt.messages[-1].content)

    async def score(self, prompt: Prompt, answer: str) -> float:
        self.calls += 1
        await (self.hold.wait() if self.hold else asyncio.sleep(0))
        return self.logit(ids_of(answer))


class WatchedTokenizer(Tokenizer):
    """Another tokenizer, which calls `watch` with each text before it is encoded."""

    def __init__(self, tokenizer: Tokenizer, watch: Callable[[str], object]) -> None:
        vars(self).update(vars(tokenizer))
        self._watch = watch

    def encode(self, text: str) -> list[int]:
        self._watch(text)
        return super().encode(text)
