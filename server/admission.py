"""Admission: how many candidates run at once, how much may wait, and in which order.

A request of K candidates counts as K and is admitted whole or not at all. What does not fit waits in a queue that is fair
between flows: start-time fair queueing (Goyal, Vin, Cheng 1996), where a flow is one client's requests of one size. Covers
no deadline and no HTTP; of one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from winnow.models.errors import WinnowError

Flow = tuple[Hashable, int]


class Overloaded(WinnowError):
    """There is no room to wait in; `retry_after` is after how many seconds, 1 to 60, there may be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is full; try again in {retry_after} s")
        self.retry_after = retry_after


class Admission:
    """Lets candidates run, at most `max_in_flight` at once, and requests wait, up to two bounds.

    Each request gets a start tag S = max(V, F), F the finish tag S + K of its flow's request before it, V the start tag of the
    request admitted last; the smallest S goes next. The bound: while two flows both wait, the candidates admitted from
    them differ by at most K₁ + K₂. So a single candidate waits behind at most one request of each other flow that waits,
    however many such a flow has; and as nobody overtakes the head of the queue while it waits for room, a large request
    starves as little as a small one.
    """

    def __init__(
        self,
        max_in_flight: int,
        max_queued_candidates: int,
        max_queued_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_queued_candidates = max_queued_candidates
        self.max_queued_tokens = max_queued_tokens
        self.in_flight = 0
        self.queued_candidates = 0
        self.queued_tokens = 0
        self._queue: list[Ticket] = []
        self._finish_tags: dict[Flow, float] = {}
        self._virtual_time = 0.0
        self._arrivals = itertools.count()
        self._pace = _Pace(clock)

    @property
    def queued_requests(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def require_room(self, candidates: int, tokens: int = 0) -> None:
        """Check, before any work is done for a request, that `enter` would take it.

        Raises:
            Overloaded: it would not.
        """
        if not self._queue and self.in_flight + candidates <= self.max_in_flight:
            return
        too_many = self.queued_candidates + candidates > self.max_queued_candidates
        if too_many or self.queued_tokens + tokens > self.max_queued_tokens:
            raise Overloaded(self._pace.seconds_for(self.in_flight + self.queued_candidates))

    def enter(self, flow: Hashable, candidates: int, tokens: int) -> Ticket:
        """Take a place for a request of `flow` with K = `candidates`, in 1..max_in_flight, and `tokens` of prompt.

        Raises:
            Overloaded: it neither can run now nor may wait.
        """
        self.require_room(candidates, tokens)
        key = (flow, candidates)
        start = max(self._virtual_time, self._finish_tags.get(key, 0.0))
        self._finish_tags[key] = start + candidates
        ticket = Ticket(self, key, candidates, tokens, (start, next(self._arrivals)))
        self.queued_candidates += candidates
        self.queued_tokens += tokens
        heapq.heappush(self._queue, ticket)
        self._admit()
        return ticket

    def _admit(self) -> None:
        """Admit from the head of the queue for as long as the head fits."""
        while self._queue and self.in_flight + self._queue[0].candidates <= self.max_in_flight:
            ticket = heapq.heappop(self._queue)
            self._unqueue(ticket)
            self.in_flight += ticket.candidates
            self._virtual_time = ticket.order[0]
            ticket.turn.set()
        # A flow without a claim against others is forgotten; where nobody waits, that is every flow.
        waiting = self._virtual_time if self._queue else math.inf
        if len(self._finish_tags) > 2 * len(self._queue):
            self._finish_tags = {flow: tag for flow, tag in self._finish_tags.items() if tag > waiting}

    def _unqueue(self, ticket: Ticket) -> None:
        self.queued_candidates -= ticket.candidates
        self.queued_tokens -= ticket.tokens

    def _leave(self, ticket: Ticket) -> None:
        if ticket.is_admitted:
            self.in_flight -= ticket.candidates
            self._pace.count(ticket.candidates)
        else:
            self._queue.remove(ticket)
            heapq.heapify(self._queue)
            self._unqueue(ticket)
        self._admit()


@dataclass(order=True, slots=True)
class Ticket:
    """A request's place: first in the queue, then in flight. Whoever entered leaves, whatever happened in between."""

    admission: Admission = field(compare=False)
    flow: Flow = field(compare=False)
    candidates: int = field(compare=False)
    tokens: int = field(compare=False)
    order: tuple[float, int]
    has_left: bool = field(default=False, compare=False)
    turn: asyncio.Event = field(default_factory=asyncio.Event, compare=False)

    @property
    def is_admitted(self) -> bool:
        """Whether the candidates may run, or have run."""
        return self.turn.is_set()

    async def admitted(self) -> None:
        """Return once the candidates may run."""
        await self.turn.wait()

    def leave(self) -> None:
        """Give the place back; a second time does nothing."""
        if not self.has_left:
            self.has_left = True
            self.admission._leave(self)


class _Pace:
    """How fast candidates leave: an exponentially weighted rate."""

    WEIGHT = 0.1

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: float | None = None
        self._seconds: float | None = None

    def count(self, candidates: int) -> None:
        """Note that so many candidates have left just now."""
        now = self._clock()
        if self._last is not None:
            each = (now - self._last) / candidates
            self._seconds = each if self._seconds is None else (1 - self.WEIGHT) * self._seconds + self.WEIGHT * each
        self._last = now

    def seconds_for(self, candidates: int) -> int:
        """An estimate of how long so many candidates take, in whole seconds from 1 to 60."""
        return min(60, max(1, math.ceil(candidates * (self._seconds or 0.0))))
