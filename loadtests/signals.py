"""Signals that end a run early, and keep what was measured: SIGINT (Ctrl-C), SIGTERM and SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


class Interruption:
    """Whether a signal asked for the end of the run."""

    def __init__(self) -> None:
        self.is_requested = False
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def event(self) -> asyncio.Event:
        """Return the event that the signals set in the running loop."""
        self._loop = asyncio.get_running_loop()
        if self.is_requested:
            self._stop.set()
        return self._stop

    def request(self, _number: int, _frame: FrameType | None) -> None:
        """Ask for the end; a handler of signals. Further signals change nothing: the end is near."""
        self.is_requested = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handle the signals within the block. An ignored SIGHUP stays so: that is what `nohup` asks for."""
    interruption = Interruption()
    previous = {}
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            with contextlib.suppress(ValueError):  # not the main thread, which alone gets signals
                previous[number] = signal.signal(number, interruption.request)
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
