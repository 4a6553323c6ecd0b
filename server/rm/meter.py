"""Progress on standard error: one line that changes on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

LINE_SECONDS = 10.0
"""Time between two lines of progress where standard error is no terminal."""
_TERMINAL_SECONDS = 0.2
_ERASE = "\r\x1b[K"


class Meter:
    """Shows the state of some work, as a text that is made only where it is shown."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._shown = time.monotonic()

    def show(self, text: Callable[[], str]) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_SECONDS if self._is_terminal else LINE_SECONDS):
            self._shown = now
            self._write(f"{_ERASE}{text()}" if self._is_terminal else f"{text()}\n")

    def end(self, text: str) -> None:
        """Show the last state."""
        self._write(f"{_ERASE if self._is_terminal else ''}{text}\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Format a time as `1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
