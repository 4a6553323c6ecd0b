"""Admission: how many candidates are in flight, how many may wait, and who is next.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) over candidates; of one event loop. It does not cover
the order inside an engine, how much one client may ask in all, or one client that asks under many names at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from winnow.models.errors import WinnowError

Clock = Callable[[], float]
FlowKey = tuple[Hashable, int]
RATE_MEMORY = 30.0  # seconds in which what is known of the rate of leaving fades to 1/e


class Overloaded(WinnowError):
    """Neither room nor a place in the queue is left; `retry_after` is when to try again, in seconds from 1 to 60."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is full; try again in {retry_after} s")
        self.retry_after = retry_after


class Admission:
    """At most `max_in_flight` candidates in flight; behind them a bounded queue, fair between flows.

    A request of K candidates is admitted whole. A flow is one caller's requests of one K, so that its small ones do not wait
    behind its large ones. The least start tag S is the head of the queue: it waits for room, and nobody overtakes it.

    S = F, its flow's finish tag · F = S + K, set on admission · V = S of the head · F is forgotten once F ≤ V, and a flow
    without F gets S = V, or the least F of those with nothing queued if that is more, but at most V + K: were a name never
    seen better off than one just served, an endless row of new names would keep everybody's second request waiting.

    The bound: a waiting flow's S lies in [V, V + K]. So while flows f and m both wait, the candidates admitted from them
    differ by at most K_f + K_m over any interval (the paper's theorem, unit weights), and at most ⌊n·K_f / K_m⌋ + 1 requests of m are
    admitted before the n-th of f in the queue: one of K = 1 waits for one of K = 64, however many of those are queued.
    """

    def __init__(
        self, max_in_flight: int, max_queued_candidates: int, max_queued_tokens: int, clock: Clock = time.monotonic
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_queued_candidates = max_queued_candidates
        self.max_queued_tokens = max_queued_tokens
        self.in_flight = self.queued_requests = self.queued_candidates = self.queued_tokens = 0
        self._clock = clock
        self._arrivals = itertools.count()
        self._waiting: dict[FlowKey, deque[Ticket]] = {}
        self._start: dict[FlowKey, int] = {}  # S of the first of each flow that waits
        self._finish: dict[FlowKey, int] = {}  # F, of those that wait and others, where F > V
        self._virtual_time = 0
        self._since = self._seconds = self._left = 0.0  # seconds with any in flight and candidates left in them, fading

    def require_room(self, candidates: int, tokens: int = 0) -> None:
        """Raise `Overloaded` if `enter` would now; to call before any work is done for a request."""
        if not self._waiting and self.in_flight + candidates <= self.max_in_flight:
            return
        too_many = self.queued_candidates + candidates > self.max_queued_candidates
        if too_many or self.queued_tokens + tokens > self.max_queued_tokens:
            seconds = (self.in_flight + self.queued_candidates) * self._seconds / (self._left or math.inf)
            raise Overloaded(min(60, max(1, math.ceil(seconds))))

    def enter(self, flow: Hashable, candidates: int, tokens: int) -> Ticket:
        """Take a place for K = `candidates`, 1 to `max_in_flight`, for `flow`; `tokens` is its prompt's. Raises `Overloaded`."""
        assert 1 <= candidates <= self.max_in_flight, "could never be admitted"
        self.require_room(candidates, tokens)
        key = (flow, candidates)
        ticket = Ticket(self, key, candidates, tokens, next(self._arrivals))
        if key not in self._waiting:
            idle = (finish for other, finish in self._finish.items() if other not in self._waiting)
            unknown = min(min(idle, default=self._virtual_time), self._virtual_time + candidates)
            self._start[key] = self._finish.get(key, unknown)
        self._waiting.setdefault(key, deque()).append(ticket)
        self.queued_requests += 1
        self.queued_candidates += candidates
        self.queued_tokens += tokens
        self._admit()
        return ticket

    def _admit(self) -> None:
        """Admit the head while it fits, and the next; linear in the flows that wait. Once nobody waits, all tags are forgotten."""
        while key := min(self._waiting, key=lambda k: (self._start[k], self._waiting[k][0].arrival), default=None):
            self._virtual_time = self._start[key]
            head = self._waiting[key][0]
            if self.in_flight + head.candidates > self.max_in_flight:
                break
            self._start[key] = self._finish[key] = self._virtual_time + head.candidates
            self._unqueue(head)
            if not self.in_flight:
                self._since = self._clock()
            self.in_flight += head.candidates
            head._turn.set()
        self._finish = {key: tag for key, tag in self._finish.items() if self._waiting and tag > self._virtual_time}

    def _unqueue(self, ticket: Ticket) -> None:
        self._waiting[ticket.flow].remove(ticket)
        if not self._waiting[ticket.flow]:
            del self._waiting[ticket.flow], self._start[ticket.flow]
        self.queued_requests -= 1
        self.queued_candidates -= ticket.candidates
        self.queued_tokens -= ticket.tokens

    def _leave(self, ticket: Ticket) -> None:
        if ticket.is_admitted:
            self.in_flight -= ticket.candidates
            elapsed = self._clock() - self._since
            kept = math.exp(-elapsed / RATE_MEMORY)
            self._since += elapsed
            self._seconds = self._seconds * kept + elapsed
            self._left = self._left * kept + ticket.candidates
        else:
            self._unqueue(ticket)
        self._admit()


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place, in the queue and then in flight. Whoever entered calls `leave`, whatever happened between."""

    admission: Admission = field(repr=False)
    flow: FlowKey
    candidates: int
    tokens: int
    arrival: int
    _turn: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _has_left: bool = False

    @property
    def is_admitted(self) -> bool:
        """Whether its candidates have been let in; stays so after it has left."""
        return self._turn.is_set()

    async def admitted(self) -> None:
        """Wait until the candidates may run; suspends only if it must. Meanwhile no other task may call `leave`."""
        await self._turn.wait()

    def leave(self) -> None:
        """Release the candidates, or the place in the queue, and let in who is next; a second time does nothing."""
        if not self._has_left:
            self._has_left = True
            self.admission._leave(self)
