"""Scripted targets in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.loadtests.virtual import now
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.types import Reply, Request


@dataclass
class Scripted:
    """A target that takes `seconds(request)`, at most `slots` requests at once, and replies `reply(request)`."""

    name: str = "scripted"
    seconds: Callable[[Request], float] = lambda request: 1.0
    reply: Callable[[Request], Reply | None] = lambda request: None
    slots: int = 1_000_000
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    _inside: int = 0
    _free: asyncio.Semaphore | None = None

    async def send(self, request: Request) -> Reply:
        self.requests.append(request)
        self._free = self._free or asyncio.Semaphore(self.slots)
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        try:
            async with self._free:
                await asyncio.sleep(self.seconds(request))
                return self.reply(request) or answered(request)
        finally:
            self._inside -= 1


def answered(request: Request) -> Reply:
    """Return an answer of 10 tokens per candidate, whose text depends on the request."""
    return Reply(
        "answered",
        now(),
        first_byte=now(),
        text=f"{request.messages[-1]['content']}, seed {request.seed}",
        candidates=request.candidates,
        sampled_tokens=10 * request.candidates,
        winner_tokens=10,
        score_tail=0.25,
    )


def request(number: int = 0, *, candidates: int = 4, leave_after: float | None = None, **options: object) -> Request:
    """Return a request."""
    return Request(number, ({"role": "user", "content": "Hello!"},), candidates, 16, number, options, leave_after)


def sample(number: int, due: float, latency: float, lag: float = 0.0, **reply: object) -> Sample:
    """Return a sample, answered unless `kind` says otherwise."""
    given = Reply(**{"kind": "answered", "done": due + latency, **reply})  # type: ignore[arg-type]
    return Sample(number, due, due + lag, given)
