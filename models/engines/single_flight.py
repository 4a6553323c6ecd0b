"""A value that many ask for and one computes, such as the part of a score that all answers to a prompt share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Flight(Generic[V]):
    task: asyncio.Future[V]
    waiting: int = 0


class SingleFlight(Generic[K, V]):
    """Computes a value once for a key, and keeps the `size` that were asked for last.

    Who asks while it is computed waits for the same computation. It is cancelled only when the last of them is, and a
    failure reaches all of them and is not kept.
    """

    def __init__(self, compute: Callable[[K], Awaitable[V]], size: int) -> None:
        self._compute = compute
        self._size = size
        self._known: OrderedDict[K, V] = OrderedDict()
        self._flights: dict[K, _Flight[V]] = {}

    def known(self, key: K) -> V | None:
        """Return the value if it is kept."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def forget(self) -> None:
        """Drop all values."""
        self._known.clear()

    async def __call__(self, key: K) -> V:
        """Return the value of `key`; raises what its computation raises."""
        if (value := self.known(key)) is not None:
            return value
        flight = self._flights.get(key) or self._start(key)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._flights.pop(key)  # the next to ask starts anew
                flight.task.cancel()

    def _start(self, key: K) -> _Flight[V]:
        flight = self._flights[key] = _Flight(asyncio.ensure_future(self._compute(key)))
        flight.task.add_done_callback(partial(self._landed, key, flight))
        return flight

    def _landed(self, key: K, flight: _Flight[V], task: asyncio.Future[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if task.cancelled() or task.exception():
            return
        self._known[key] = task.result()
        while len(self._known) > self._size:
            self._known.popitem(last=False)
