"""Scripted systems in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.loadtests.virtual import now
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.types import Ask, Reply


@dataclass
class Scripted:
    """Takes `seconds(ask)` for an answer, or gives what `reply` gives; never more than `slots` at once, the rest wait their turn."""

    name: str = "scripted"
    seconds: Callable[[Ask], float] = lambda ask: 1.0
    reply: Callable[[Ask], Reply | None] = lambda ask: None
    slots: int = 1_000_000
    asked: list[Ask] = field(default_factory=list)
    most_at_once: int = 0
    _inside: int = 0
    _free: asyncio.Semaphore | None = None

    async def ask(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        self._free = self._free or asyncio.Semaphore(self.slots)
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        try:
            async with self._free:
                await asyncio.sleep(self.seconds(ask))
                return self.reply(ask) or answered(ask)
        finally:
            self._inside -= 1


def answered(ask: Ask) -> Reply:
    """An answer whose text depends on what was asked, 10 tokens a candidate."""
    return Reply(
        "answered",
        now(),
        first_byte=now(),
        text=f"{ask.messages[-1]['content']}, seed {ask.seed}",
        candidates=ask.candidates,
        sampled_tokens=10 * ask.candidates,
        winner_tokens=10,
        score_tail=0.25,
    )


def ask(number: int = 0, *, candidates: int = 4, leave_after: float | None = None, **options: object) -> Ask:
    """A request."""
    return Ask(number, ({"role": "user", "content": "Hello!"},), candidates, 16, number, options, leave_after)


def sample(number: int, due: float, latency: float, lag: float = 0.0, **reply: object) -> Sample:
    """A sample; answered unless `kind` says otherwise."""
    given = Reply(**{"kind": "answered", "done": due + latency, **reply})  # type: ignore[arg-type]
    return Sample(number, due, due + lag, given)
