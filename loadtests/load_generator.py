"""Sends requests to a target and records for each when it was due, when it was sent, and its reply.

Open loop: requests are sent when they are due, however many are outstanding, and latencies count from then. A
target that stalls is charged for every request that falls due meanwhile (no coordinated omission). Closed loop:
a fixed number of clients, each of which sends its next request as soon as it has the reply to the last, even a
refusal. No HTTP, no repeats, no judgement here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from winnow.loadtests.types import Reply, Request, Target

NOT_IN_TIME = "not answered in time"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured request. Instants are `time.perf_counter()` seconds.

    `intended` is when it was due: in an open loop its arrival, in a closed loop the moment its client became
    free. `sent` is when it was sent; the difference is lateness of the load tester itself.
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
        """Seconds by which the load tester was late."""
        return self.sent - self.intended


def _ignore(sample: Sample) -> None:
    """Do nothing."""


@dataclass(slots=True)
class _Run:
    """One run of the generator: where requests go, and the samples of those that have ended."""

    target: Target
    now: Callable[[], float]
    on_sample: Callable[[Sample], None]
    samples: list[Sample] = field(default_factory=list)
    is_overdue: bool = False

    async def send(self, request: Request, intended: float) -> Sample:
        """Send a request and record its sample. A request cancelled at the end of the drain has failed."""
        sent = self.now()
        try:
            reply = await self.target.send(request)
        except asyncio.CancelledError:
            if not self.is_overdue:
                raise
            reply = Reply("failed", self.now(), error=NOT_IN_TIME)
        sample = Sample(request.number, intended, sent, reply)
        self.samples.append(sample)
        self.on_sample(sample)
        return sample

    async def drain(self, tasks: Iterable[asyncio.Task[Any]], seconds: float, stop: asyncio.Event) -> None:
        """Wait up to `seconds` for the tasks and fail the rest; if `stop` is set, cancel them without a sample."""
        pending = {task for task in tasks if not task.done()}
        await _wait(asyncio.gather(*pending, return_exceptions=True), stop, seconds)
        self.is_overdue = not stop.is_set()
        for task in pending:
            task.cancel()


async def _wait(future: asyncio.Future[Any], stop: asyncio.Event, seconds: float | None) -> None:
    """Wait until `future` is done, `stop` is set, or `seconds` have passed."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({future, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


async def _until(due: float, now: Callable[[], float], stop: asyncio.Event) -> None:
    """Wait until `due` or until `stop` is set. Yields to other tasks in any case, and only then reads the clock."""
    await asyncio.sleep(0)
    seconds = due - now()
    if seconds <= 0:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def open_loop(
    target: Target,
    requests: Iterable[Request],
    offsets: Sequence[float],
    *,
    drain: float,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.perf_counter,
    on_sample: Callable[[Sample], None] = _ignore,
) -> list[Sample]:
    """Send each request at its offset, in seconds from now, and return the samples in the order in which they ended.

    Args:
        drain: seconds, above 0, for outstanding requests after the last arrival; a request without a reply by
            then has failed.
        stop: once set, no more is sent, and outstanding requests are cancelled and not counted.
        on_sample: called with each sample when it ends.
    """
    stop = stop or asyncio.Event()
    run = _Run(target, now, on_sample)
    start = now()
    outstanding: set[asyncio.Task[Sample]] = set()
    async with asyncio.TaskGroup() as group:
        for offset, request in zip(offsets, requests, strict=False):
            await _until(start + offset, now, stop)
            if stop.is_set():
                break
            task = group.create_task(run.send(request, start + offset))
            outstanding.add(task)
            task.add_done_callback(outstanding.discard)
        await run.drain(list(outstanding), drain, stop)
    return run.samples


async def closed_loop(
    target: Target,
    requests: Iterable[Request],
    concurrency: int,
    *,
    seconds: float | None = None,
    drain: float,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.perf_counter,
    on_sample: Callable[[Sample], None] = _ignore,
) -> list[Sample]:
    """Keep `concurrency` clients busy until the requests are used up or `seconds` have passed; see `open_loop`."""
    stop = stop or asyncio.Event()
    run = _Run(target, now, on_sample)
    start = now()
    rest = iter(requests)

    async def client() -> None:
        free = start
        while not stop.is_set() and not run.is_overdue and (seconds is None or now() < start + seconds):
            request = next(rest, None)
            if request is None:
                return
            sample = await run.send(request, free)
            free = sample.reply.done
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client()) for _ in range(concurrency)]
        # The first client to end has found that there are no requests left.
        first = asyncio.ensure_future(asyncio.wait(clients, return_when=asyncio.FIRST_COMPLETED))
        await _wait(first, stop, seconds)
        first.cancel()
        await run.drain(clients, drain, stop)
    return run.samples
