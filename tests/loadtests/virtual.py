"""Time that passes only when everybody waits: load tests of minutes run in no time, and to the same microsecond each time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Impatient(selectors.SelectSelector):
    """Where the loop would wait for a timer, the clock is put forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for something that will not come"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Impatient()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def now() -> float:
    """The running loop's time, for what takes `time.perf_counter` elsewhere."""
    return asyncio.get_running_loop().time()


def pass_blocking(seconds: float) -> None:
    """Spend time without giving way, as code does that blocks the loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.clock.now += seconds


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
