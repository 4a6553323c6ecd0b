"""Admission of requests: candidates in flight, a bounded fair queue behind them, and the number of candidates granted.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) over candidates, on one event loop. Not covered: the
order inside an engine, a client's total demand, and one client that uses many names at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from winnow.models.errors import Overloaded
from winnow.models.types import Reduction

Clock = Callable[[], float]
FlowKey = tuple[Hashable, int]
FULL_GRANT_SHARE = 0.5
"""Share of the places up to which every request is granted all the candidates it requests."""


class Admission:
    """Admits at most `max_in_flight` candidates; behind them a bounded queue, fair between flows.

    A request of K candidates is admitted whole. A flow is one caller's requests of one K, so that its small
    requests do not wait behind its large ones. The flow with the least start tag S is the head of the queue: it
    waits for room, and no other flow overtakes it.

    A request may also accept fewer than K candidates, down to a least. It then waits as a request of the least,
    and its grant is decided on admission: K while at most half of the places are taken or waited for, then
    linearly less, and the least once all places are.

    S = F, the flow's finish tag. F = S + K, set on admission. V = S of the head. F is forgotten once F ≤ V. A
    flow without F gets S = V, or the least F of the flows with nothing queued if that is more, but at most V +
    K: if a new flow were always ahead of one just served, an endless sequence of new flows would starve
    each client's second request.

    The bound: the S of a waiting flow lies in [V, V + K]. So while flows f and m both wait, the candidates
    admitted from them differ by at most K_f + K_m over any interval (the paper's theorem, unit weights), and at
    most ⌊n·K_f / K_m⌋ + 1 requests of m are admitted before the n-th of f in the queue, K_m being the grant of
    m's requests: a request of K = 1 waits for one of K = 64, however many of those are queued.

    A request whose candidates are drawn in waves enters with its first. Each later wave enters for itself, and counts
    for its flow as it is admitted: ahead of the flow's requests that have not begun, and never refused, since the
    earlier waves' work would be lost. K of the bound is then the largest wave of the flow.
    """

    def __init__(
        self,
        max_in_flight: int,
        max_queued_candidates: int,
        max_queued_tokens: int,
        max_wait: float = math.inf,
        clock: Clock = time.monotonic,
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_queued_candidates = max_queued_candidates
        self.max_queued_tokens = max_queued_tokens
        self.max_wait = max_wait
        self.in_flight = self.queued_requests = self.queued_candidates = self.queued_tokens = 0
        self._clock = clock
        self._arrivals = itertools.count()
        self._waiting: dict[FlowKey, deque[Ticket]] = {}
        self._start: dict[FlowKey, int] = {}  # S of the first of each flow that waits
        self._finish: dict[FlowKey, int] = {}  # F, of those that wait and others, where F > V
        self._virtual_time = 0
        self._stay = 0.0  # seconds from admission to leaving, averaged over about the last `max_in_flight` candidates

    def require_room(self, candidates: int, tokens: int = 0, deadline: float = math.inf) -> None:
        """Raise `Overloaded` if `enter` would raise it now; called before any work is done for a request.

        `candidates` is the least that the request accepts. `deadline` is an instant of the clock: admission
        after it is too late.
        """
        if not self._waiting and self.in_flight + candidates <= self.max_in_flight:
            return
        too_many = self.queued_candidates + candidates > self.max_queued_candidates
        too_late = self._wait(candidates) > min(self.max_wait, deadline - self._clock())
        if too_many or too_late or self.queued_tokens + tokens > self.max_queued_tokens:
            raise Overloaded(min(60, max(1, math.ceil(self._wait(self.max_in_flight)))))

    def _wait(self, candidates: int) -> float:
        """Return the expected seconds until `candidates` more are admitted behind the queue, by Little's law.

        All places turn over once per stay. The order in the queue is not considered: a flow of small requests
        waits less.
        """
        ahead = self.in_flight + self.queued_candidates + candidates - self.max_in_flight
        return max(0, ahead) / self.max_in_flight * self._stay

    def enter(
        self, flow: Hashable, candidates: int, tokens: int, least: int | None = None, deadline: float = math.inf
    ) -> Ticket:
        """Queue a request of K = `candidates`, 1 to `max_in_flight`, for `flow`; `tokens` is the length of its prompt.

        `least`, 1 to K, is the fewest candidates it accepts under load. A request still waiting at its
        `deadline` is granted a single candidate, as soon as there is room for it.

        Raises:
            Overloaded: neither room nor a place in the queue is left.
        """
        least = least or candidates
        assert 1 <= least <= candidates <= self.max_in_flight, "could never be admitted"
        self.require_room(least, tokens, deadline)
        key = (flow, candidates)
        return self._queue(Ticket(self, key, candidates, least, tokens, next(self._arrivals), deadline))

    def enter_wave(self, first: Ticket, candidates: int) -> Ticket:
        """Queue another wave of a request that entered with `first`: ahead of those of its flow that have not begun."""
        return self._queue(Ticket(self, first.flow, candidates, candidates, 0, first.arrival, has_begun=True))

    def enter_ahead(self, first: Ticket, candidates: int) -> Ticket | None:
        """Admit a wave that may not be needed: only while half of the places stay free, and no request waits."""
        if self._waiting or self.in_flight + candidates > self.max_in_flight * FULL_GRANT_SHARE:
            return None
        return self.enter_wave(first, candidates)

    @property
    def now(self) -> float:
        """The instant of the clock."""
        return self._clock()

    def _queue(self, ticket: Ticket) -> Ticket:
        key = ticket.flow
        if key not in self._waiting:
            idle = (finish for other, finish in self._finish.items() if other not in self._waiting)
            unknown = min(min(idle, default=self._virtual_time), self._virtual_time + ticket.requested)
            self._start[key] = self._finish.get(key, unknown)
        queue = self._waiting.setdefault(key, deque())
        queue.insert(sum(other.has_begun for other in queue) if ticket.has_begun else len(queue), ticket)
        self.queued_requests += 1
        self.queued_candidates += ticket.least
        self.queued_tokens += ticket.tokens
        self._admit()
        ticket.has_waited = not ticket.is_admitted
        return ticket

    def _admit(self) -> None:
        """Admit the head while it fits, then the next; linear in the waiting flows. An empty queue forgets all tags."""
        while key := min(self._waiting, key=lambda k: (self._start[k], self._waiting[k][0].arrival), default=None):
            self._virtual_time = self._start[key]
            head = self._waiting[key][0]
            if self.in_flight + (1 if self._is_late(head) else head.least) > self.max_in_flight:
                break
            self._unqueue(head)
            self._grant(head)
            if key in self._start:
                self._start[key] = self._virtual_time + head.candidates
            self._finish[key] = self._virtual_time + head.candidates
        self._finish = {key: tag for key, tag in self._finish.items() if self._waiting and tag > self._virtual_time}

    def _is_late(self, ticket: Ticket) -> bool:
        return ticket.has_waited and self._clock() >= ticket.deadline

    def _grant(self, ticket: Ticket) -> None:
        """Decide how many candidates the request is granted, and admit it."""
        taken = (self.in_flight + self.queued_candidates) / self.max_in_flight
        share = min(1.0, max(0.0, (1 - taken) / (1 - FULL_GRANT_SHARE)))
        allowed = ticket.least + math.floor(share * (ticket.requested - ticket.least))
        if self._is_late(ticket):
            allowed, ticket.reduced_by = 1, "deadline"
        ticket.candidates = min(allowed, self.max_in_flight - self.in_flight)
        if ticket.candidates == ticket.requested:
            ticket.reduced_by = None
        elif ticket.reduced_by is None:
            ticket.reduced_by = "load"
        ticket.admitted_at = self._clock()
        self.in_flight += ticket.candidates
        ticket._turn.set()

    def _unqueue(self, ticket: Ticket) -> None:
        self._waiting[ticket.flow].remove(ticket)
        if not self._waiting[ticket.flow]:
            del self._waiting[ticket.flow], self._start[ticket.flow]
        self.queued_requests -= 1
        self.queued_candidates -= ticket.least
        self.queued_tokens -= ticket.tokens

    def _leave(self, ticket: Ticket) -> None:
        if ticket.is_admitted:
            self.in_flight -= ticket.candidates
            stay = self._clock() - ticket.admitted_at
            self._stay += (stay - self._stay) * (ticket.candidates / self.max_in_flight if self._stay else 1.0)
        else:
            self._unqueue(ticket)
        self._admit()


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place, or one wave's, in the queue and then in flight. Its owner always calls `leave` in the end.

    `requested` is its K, or the wave's size, and `least` the fewest candidates it accepts. Once it is admitted,
    `candidates` is its grant, and `reduced_by` the reason if that is less than requested.
    """

    admission: Admission = field(repr=False)
    flow: FlowKey
    requested: int
    least: int
    tokens: int
    arrival: int
    deadline: float = math.inf
    has_begun: bool = False
    """Whether it is a later wave of a request that has begun."""
    has_waited: bool = False
    candidates: int = 0
    reduced_by: Reduction | None = None
    admitted_at: float = 0.0
    _turn: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _has_left: bool = False

    @property
    def is_admitted(self) -> bool:
        """Whether its candidates have been admitted; stays true after it has left."""
        return self._turn.is_set()

    async def admitted(self) -> None:
        """Wait until the candidates may run; suspends only if necessary. No other task may call `leave` meanwhile."""
        if not self.is_admitted and self.deadline < math.inf:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self.deadline - self.admission._clock())):
                    await self._turn.wait()
            self.admission._admit()  # at the deadline a single place is enough
        await self._turn.wait()

    def leave(self) -> None:
        """Release the candidates, or the place in the queue, and admit the next request; a second call does nothing."""
        if not self._has_left:
            self._has_left = True
            self.admission._leave(self)
