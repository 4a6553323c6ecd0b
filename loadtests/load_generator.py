"""Offers requests to a system, and notes when each was meant to start, when it did, and what came of it.

Open loop: requests start when they are due, whatever is outstanding, and latencies count from the instant they were due. A system
that stalls is therefore charged for everyone who would have come meanwhile (no coordinated omission). Closed loop: so many clients,
each of which asks again as soon as it has its answer, a refused one too. Knows nothing of HTTP, of repeats, or of what is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from winnow.loadtests.types import Ask, Reply, System

NOT_IN_TIME = "not answered in time"


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Instants are `time.perf_counter()` seconds.

    `intended` is when it was due: in an open loop its arrival, in a closed one when its client had become free. `sent` is when it
    was begun; what lies between is the tester's own lateness.
    """

    number: int
    intended: float
    sent: float
    reply: Reply

    @property
    def latency(self) -> float:
        """Seconds from when it was due to the end of the reply."""
        return self.reply.done - self.intended

    @property
    def first_byte(self) -> float | None:
        """Seconds from when it was due to the first byte of the answer."""
        return None if self.reply.first_byte is None else self.reply.first_byte - self.intended

    @property
    def lag(self) -> float:
        """Seconds by which the tester was late."""
        return self.sent - self.intended


def _nobody(sample: Sample) -> None:
    """Nobody watches."""


@dataclass(slots=True)
class _Flight:
    """The requests of one run: those that are under way, and the samples of those that have ended."""

    system: System
    now: Callable[[], float]
    seen: Callable[[Sample], None]
    samples: list[Sample] = field(default_factory=list)
    is_overdue: bool = False

    async def ask(self, ask: Ask, intended: float) -> Sample:
        """Ask, and note it. What is cancelled because the time is over has failed."""
        sent = self.now()
        try:
            reply = await self.system.ask(ask)
        except asyncio.CancelledError:
            if not self.is_overdue:
                raise
            reply = Reply("failed", self.now(), error=NOT_IN_TIME)
        sample = Sample(ask.number, intended, sent, reply)
        self.samples.append(sample)
        self.seen(sample)
        return sample

    async def land(self, tasks: Iterable[asyncio.Task[Any]], drain: float, stop: asyncio.Event) -> None:
        """Wait `drain` seconds for the tasks and cancel the rest; once `stop` is set, cancel them at once and count none."""
        pending = {task for task in tasks if not task.done()}
        await _wait(asyncio.gather(*pending, return_exceptions=True), stop, drain)
        self.is_overdue = not stop.is_set()
        for task in pending:
            task.cancel()


async def _wait(what: asyncio.Future[Any], stop: asyncio.Event, seconds: float | None) -> None:
    """Wait until it is done, `stop` is set, or the time is over."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({what, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


async def _until(due: float, now: Callable[[], float], stop: asyncio.Event) -> None:
    """Wait until `due`, or until `stop` is set; give way to the others in any case, and read the clock after that."""
    await asyncio.sleep(0)
    seconds = due - now()
    if seconds <= 0:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def open_loop(
    system: System,
    asks: Iterable[Ask],
    offsets: Sequence[float],
    *,
    drain: float,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.perf_counter,
    seen: Callable[[Sample], None] = _nobody,
) -> list[Sample]:
    """Send each ask at its offset, in seconds from now, and return the samples in the order of their ends.

    `drain`: seconds, above 0, that the outstanding requests have after the last arrival; what has no reply then has failed. When `stop`
    is set, no more is sent, and what is outstanding is given up and not counted. `seen` is called with each sample.
    """
    stop = stop or asyncio.Event()
    flight = _Flight(system, now, seen)
    start = now()
    under_way: set[asyncio.Task[Sample]] = set()
    async with asyncio.TaskGroup() as group:
        for offset, ask in zip(offsets, asks, strict=False):
            await _until(start + offset, now, stop)
            if stop.is_set():
                break
            task = group.create_task(flight.ask(ask, start + offset))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await flight.land(list(under_way), drain, stop)
    return flight.samples


async def closed_loop(
    system: System,
    asks: Iterable[Ask],
    concurrency: int,
    *,
    seconds: float | None = None,
    drain: float,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.perf_counter,
    seen: Callable[[Sample], None] = _nobody,
) -> list[Sample]:
    """Keep `concurrency` clients asking until the asks are used up or `seconds` are over; for the rest see `open_loop`."""
    stop = stop or asyncio.Event()
    flight = _Flight(system, now, seen)
    start = now()
    rest = iter(asks)

    async def client() -> None:
        free = start
        while not stop.is_set() and not flight.is_overdue and (seconds is None or now() < start + seconds):
            ask = next(rest, None)
            if ask is None:
                return
            sample = await flight.ask(ask, free)
            free = sample.reply.done
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client()) for _ in range(concurrency)]
        # The first client to end has found that there is nothing more to ask.
        first = asyncio.ensure_future(asyncio.wait(clients, return_when=asyncio.FIRST_COMPLETED))
        await _wait(first, stop, seconds)
        first.cancel()
        await flight.land(clients, drain, stop)
    return flight.samples
