"""A pool of actors behind the driver of an offline run: its journal stays the only one, and has each prompt once.

A call goes to the ready actor with the fewest candidates in flight. No actor gets more than its engines can take up,
the rest waits here: so lengths may be uneven, and no actor has work left while others are idle. An actor that dies
loses only what it had in flight, which is sent to another; seeds follow from the line alone, so the answers are the
same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from winnow.models.errors import NoScoredCandidate, RunError
from winnow.server.aio import cancel
from winnow.server.distill.backends.base import Answered, all_failed
from winnow.server.distill.parser import Task
from winnow.server.pipeline.request import Request
from winnow.server.ray.actor import EngineActor, Orders, Refused
from winnow.server.ray.cluster import connected, line_of, share_of

logger = logging.getLogger(__name__)

MOST_LOSSES = 8
"""Deaths of actors that one call survives. Perhaps it is the cause: then the prompt fails, and not the run."""
MOST_STARTS = 8
"""Starts in a row that an actor may die in before it is given up."""
MOST_CALLS = 100_000
"""Calls that an actor takes at once; the pool sends it fewer."""
PAUSE = 0.5
"""Seconds before an actor that is gone is asked again."""
OUTAGE_SECONDS = 1800.0
"""Longest time without any actor that is ready: longer than large models take to load on a new node."""
DEPTH = 2
"""Candidates in flight on an actor, in terms of those that its engines run at once: enough that they never wait."""


@dataclass(eq=False, slots=True)
class Member:
    """One actor of the pool, for as long as the run lasts; `handle` changes if Ray gives it up."""

    handle: Any
    is_ready: bool = False
    load: int = 0
    """Candidates in flight on it."""
    fault: str | None = None
    reason: str = ""
    """The reason why it was not ready when it was last asked."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Waiting:
    weight: int
    turn: asyncio.Future[Member]


class Errors(NamedTuple):
    """Ray's exceptions: of any kind, of the actor's own code, of an actor that may never run again, or not yet."""

    any: type[Exception]
    own: type[Exception]
    dead: type[Exception]
    away: type[Exception]


class ActorPool:
    """Actors that `create` returns the handles of, `size` of them, each with `room` for candidates."""

    def __init__(
        self,
        create: Callable[[], Any],
        size: int,
        room: int,
        errors: Errors,
        outage_seconds: float = OUTAGE_SECONDS,
    ) -> None:
        self._create = create
        self._room = room
        self._errors = errors
        self._outage_seconds = outage_seconds
        self._members = [Member(create()) for _ in range(size)]
        self._waiting: deque[_Waiting] = deque()
        self._failed: RunError | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the actors running for the length of the block, which is entered as the first one is ready.

        Raises:
            RunError: none can be started.
        """
        keepers = [asyncio.create_task(self._keep(member)) for member in self._members]
        watch = asyncio.create_task(self._watch())
        try:
            self._leave(await self._taken(1), 1)
            yield
        finally:
            for task in (*keepers, watch):
                cancel(task)
            await self._close()

    async def call(self, method: str, *arguments: object, weight: int = 1) -> Any:
        """Return what `method` of an actor does with these arguments; `weight` is its number of candidates.

        Raises:
            NoScoredCandidate: actor after actor has died of it.
            RunError: no actor can be used any more, or the actor's own error.
        RequestError: the actor's own.
        """
        for _ in range(MOST_LOSSES):
            member = await self._taken(weight)
            try:
                found = await getattr(member.handle, method).remote(*arguments)
            except self._errors.any as error:
                if isinstance(error, self._errors.own):
                    raise
                found = Refused.UNREADY
            finally:
                self._leave(member, weight)
            if found != Refused.UNREADY:
                return found.raised() if isinstance(found, Refused) else found
            self._lose(member)
        raise NoScoredCandidate(f"the engines died {MOST_LOSSES} times while they answered it")

    async def _taken(self, weight: int) -> Member:
        """Wait for a member with room; calls are served in order."""
        if self._failed:
            raise self._failed
        turn: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(weight, turn))
        self._place()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._leave(turn.result(), weight)
            raise

    def _place(self) -> None:
        """Give waiting calls to members, as far as there is room; an idle member takes a call of any weight."""
        while self._waiting:
            call = self._waiting[0]
            best = min((member for member in self._members if member.is_ready), key=lambda m: m.load, default=None)
            if best is None or (best.load and best.load + call.weight > self._room):
                return
            self._waiting.popleft()
            if not call.turn.done():
                best.load += call.weight
                call.turn.set_result(best)

    def _leave(self, member: Member, weight: int) -> None:
        member.load -= weight
        self._place()

    def _lose(self, member: Member) -> None:
        if member.is_ready:
            logger.warning("an actor is gone; what it had in flight is sent to another")
        member.is_ready = False
        member.lost.set()

    async def _keep(self, member: Member) -> None:
        """Start the member, and again whenever it is lost, until that is of no use."""
        while True:
            member.lost.clear()
            member.fault = await self._started(member)
            if member.fault:
                logger.warning("an actor cannot start: %s", member.fault)
                return
            member.is_ready, member.reason = True, ""
            self._place()
            await member.lost.wait()

    async def _started(self, member: Member) -> str | None:
        """Wait until the member's engines run; return the reason if they cannot.

        While Ray starts a process for it, which may load models for minutes, or a model elsewhere is down, it is asked
        again and again: only its deaths count.
        """
        deaths = 0
        while deaths < MOST_STARTS:
            try:
                found: str | Refused | None = await member.handle.start.remote()
                if not isinstance(found, Refused):
                    return found
                self._wait_for(member, found.message)
            except self._errors.any as error:
                member.reason = line_of(error)
                deaths += not isinstance(error, self._errors.away)
                if isinstance(error, self._errors.dead):  # it may be about to start elsewhere, and may not
                    member.handle = self._create()
            await asyncio.sleep(PAUSE)
        return f"it died {MOST_STARTS} times as it started: {member.reason}"

    def _wait_for(self, member: Member, reason: str) -> None:
        if member.reason != reason:
            logger.warning("an actor waits to start: %s", reason)
        member.reason = reason

    async def _watch(self) -> None:
        """Fail all calls once no member can be used, or none has been ready for too long."""
        since = time.monotonic()
        while True:
            await asyncio.sleep(PAUSE)
            if any(member.is_ready for member in self._members):
                since = time.monotonic()
            elif all(member.fault for member in self._members):
                return self._fail(RunError(f"no actor can start: {self._members[0].fault}"))
            elif time.monotonic() - since > self._outage_seconds:
                reason = next((f": {member.reason}" for member in self._members if member.reason), "")
                return self._fail(RunError(f"no actor has been ready for {self._outage_seconds:g} s{reason}"))

    def _fail(self, error: RunError) -> None:
        self._failed = error
        for call in self._waiting:
            if not call.turn.done():
                call.turn.set_exception(error)
        self._waiting.clear()

    async def _close(self) -> None:
        """Let the actors end their engines; those that do not answer end with this process."""
        ending = [asyncio.ensure_future(_closed(member.handle)) for member in self._members if member.is_ready]
        if ending:
            await asyncio.wait(ending, timeout=10)
        for task in ending:
            cancel(task)


async def _closed(handle: Any) -> None:
    await handle.close.remote()


class OnActors:
    """The backend over a pool; see `Backend`."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool

    async def __call__(self, request: Request, first: int = 0) -> Answered:
        """Sample and score; see `Backend`."""
        try:
            answered: Answered = await self._pool.call("answer", request, first, weight=request.candidates)
        except NoScoredCandidate as error:
            if error.failures:
                raise
            raise all_failed(request, str(error)) from None
        return answered

    async def is_safety(self, task: Task) -> bool:
        """Whether the chosen classifier takes the line's dialog for a safety prompt; see `InProcess.is_safety`."""
        return bool(await self._pool.call("is_safety", task))


@contextlib.contextmanager
def opened_pool(address: str, orders: Orders, actors: int) -> Iterator[ActorPool]:
    """Yield a pool of `actors` actors on the Ray cluster at `address`, each with an equal share of it.

    Raises:
        SettingsError: Ray is not installed, no cluster is there, or it has no room for so many.
    """
    with connected(address) as ray:
        share = share_of(ray, actors, orders.settings)
        logger.info("starting %d actors on Ray, each with %s", actors, share)
        errors = ray.exceptions
        remote = ray.remote(EngineActor).options(
            **share.options,
            max_restarts=-1,
            max_task_retries=0,  # a call's retries are the pool's: Ray's own would wait for the actor that died
            max_concurrency=MOST_CALLS,
            scheduling_strategy="SPREAD",
        )
        room = DEPTH * orders.settings.max_sequences
        kinds = Errors(errors.RayError, errors.RayTaskError, errors.ActorDiedError, errors.ActorUnavailableError)
        yield ActorPool(lambda: remote.remote(orders), actors, room, kinds)
