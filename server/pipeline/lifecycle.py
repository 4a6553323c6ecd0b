"""The lifecycle of a service: whether it takes requests, and how those in flight end with it.

A service is ready, then draining: it finishes the requests it has and takes no new ones. It is over when an
engine has died, or when the time to drain is up. Work that waits for an engine runs within `guard`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from winnow.models.errors import EngineDead, ShuttingDown, WinnowError
from winnow.server.aio import interrupted_by


class Lifecycle:
    """The lifecycle of one service, on one event loop."""

    def __init__(self) -> None:
        self.is_draining = False
        self.requests = 0
        """Requests in flight, of those counted by `request`."""
        self._end: WinnowError | None = None
        self._over = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_dead(self) -> bool:
        """Whether it ended because an engine died."""
        return isinstance(self._end, EngineDead)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight for the length of the block.

        Raises:
            ShuttingDown: the service takes no new requests.
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
        """Take no new requests and return when the last one has been answered; after `seconds`, end those in flight."""
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
        """Return once the lifecycle is over."""
        await self._over.wait()

    @contextlib.asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Run the block, and cancel it if the lifecycle ends first. A block that finds an engine dead ends it.

        Raises:
            WinnowError: the error that ended the lifecycle.
        """
        async with interrupted_by(self.over(), self._error):
            try:
                yield
            except EngineDead as error:
                self.end(error)
                raise

    def _error(self) -> WinnowError:
        assert self._end, "over without an end"
        return self._end
