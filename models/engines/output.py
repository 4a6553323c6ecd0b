"""The output of an engine's process: kept back until it has answered once, logged line by line afterwards.

A process that fails to start, or at its first request, prints tracebacks of its own, twice, before its starter learns
that it has ended. They are kept here, so that the starter can raise one line with the cause.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator

logger = logging.getLogger(__name__)

KEPT_LINES = 1000
"""Lines of a start that are kept, the latest."""
END_SECONDS = 2.0
"""Longest wait for the last output of a process that has ended; another process may hold the pipe open."""

_ERROR = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Failure): \S.*)$")


class EngineOutput:
    """The output, on descriptors 1 and 2, of processes that are started within `inherited`; `name` is the engine's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._is_live = False
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    @contextlib.contextmanager
    def inherited(self) -> Iterator[None]:
        """Replace this process's descriptors 1 and 2 by a pipe in the block; what comes is kept until `go_live`.

        If the block raises, what was kept is logged at level debug.
        """
        reading, writing = os.pipe()
        self._reader = threading.Thread(target=self._read, args=(reading,), name=f"{self._name} output", daemon=True)
        self._reader.start()
        try:
            with _replaced(writing):
                yield
        except Exception:
            self.end()
            raise

    def end(self) -> None:
        """Read the last output of a process that has ended; returns at once if it had answered before."""
        if self._reader and not self._is_live:
            self._reader.join(END_SECONDS)
            self._log_kept()

    def cause(self) -> str | None:
        """Return the last line with an exception that a process printed before it had answered."""
        found = (match for line in reversed(self._lines) if (match := _ERROR.search(line)))
        return next((match[1] for match in found), None)

    def go_live(self) -> None:
        """Log what was kept at level debug, and every later line as a warning; no effect the second time."""
        if not self._is_live:
            self._log_kept()
            self._lines.clear()

    def _log_kept(self) -> None:
        with self._lock:
            self._is_live = True
            for line in self._lines:
                logger.debug("%s engine: %s", self._name, line)

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with self._lock:
                    if self._is_live:
                        logger.warning("%s engine: %s", self._name, line.rstrip())
                    else:  # a line that is logged now would come back through the pipe
                        self._lines.append(line.rstrip())


@contextlib.contextmanager
def _replaced(writing: int) -> Iterator[None]:
    """Let descriptors 1 and 2 be copies of `writing` in the block, and close `writing`."""
    sys.stdout.flush()  # a forked process would write what is buffered once more
    sys.stderr.flush()
    own = os.dup(1), os.dup(2)
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(own, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
