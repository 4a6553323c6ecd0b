"""The life of a service: whether it takes requests, and what ends those in flight.

A service is ready, then draining (it finishes what it has taken and takes nothing new), and may be over at any time: an
engine has died, or the time to drain is up. Whoever waits for an engine's answer waits through `unless_over`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from winnow.models.errors import EngineDead, ShuttingDown, WinnowError

T = TypeVar("T")


class Lifecycle:
    """One service's life; of one event loop."""

    def __init__(self) -> None:
        self.is_draining = False
        self.requests = 0
        """Requests in flight, of those that `request` counts."""
        self._end: WinnowError | None = None
        self._over = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_dead(self) -> bool:
        """Whether an engine's death has ended it."""
        return isinstance(self._end, EngineDead)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight for the length of the block.

        Raises:
            ShuttingDown: the service takes no more.
            EngineDead: it cannot answer any more.
        """
        if self._end:
            raise self._end
        if self.is_draining:
            raise ShuttingDown("the server is shutting down and takes no new requests")
        self.requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and return when the last request has been answered; after `seconds`, end those left."""
        self.is_draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            self.end(ShuttingDown("the server is shutting down and could not wait for this request"))

    def end(self, error: WinnowError) -> None:
        """Fail everything in flight with `error`, for good; the first end counts."""
        self._end = self._end or error
        self._over.set()

    async def over(self) -> None:
        """Return once it is over."""
        await self._over.wait()

    async def unless_over(self, work: Coroutine[None, None, T]) -> T:
        """Return what `work` returns, or abort it when the service's life is over.

        Raises:
            WinnowError: what ended it; the work could never be finished.
        """
        return await unless(self.over(), lambda: self._end or EngineDead("over"), work)


async def unless(
    interruption: Coroutine[None, None, object], error: Callable[[], WinnowError], work: Coroutine[None, None, T]
) -> T:
    """Run `work` until it or `interruption` ends, and abort the other; raise `error()` if the interruption came first."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(interruption)
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise error()
        return task.result()
    finally:
        give_up(task)
        give_up(stop)


def give_up(task: asyncio.Future[Any]) -> None:
    """Cancel a task whose outcome nobody will ask for; what it may raise on its way out is nobody's either."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
