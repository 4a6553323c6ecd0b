"""How far a run has come, in numbers."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from winnow.server.distill.records import Entry, Problem

WINDOW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a run at a moment. Rates are those of the last half minute; `eta_seconds` None while they are 0.

    `done` counts lines with answers and `errors` those without, of earlier sittings too; `tokens` are those sampled in this one.
    """

    total: int
    done: int
    errors: int
    in_flight: int
    candidates_in_flight: int
    candidates: int
    tokens: int
    seconds: float
    prompts_per_second: float
    tokens_per_second: float
    eta_seconds: float | None


class Meter:
    """Counts what a run finishes. `total` lines are expected, blank ones not among them."""

    def __init__(self, total: int, done: int = 0, errors: int = 0) -> None:
        self.total = total
        self.done = done
        self.errors = errors
        self._in_flight = 0
        self._candidates_in_flight = 0
        self._candidates = 0
        self._tokens = 0
        self._finished = 0
        self._started = time.monotonic()
        self._past: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])

    def count(self, entry: Entry) -> None:
        """A line is finished."""
        self._finished += 1
        if isinstance(entry, Problem):
            self.errors += 1
            return
        self.done += 1
        self._candidates += len(entry.answers)
        self._tokens += sum(answer.tokens for answer in entry.answers)

    @contextlib.contextmanager
    def under_way(self, candidates: int) -> Iterator[None]:
        """A prompt is under way for the length of the block."""
        self._in_flight += 1
        self._candidates_in_flight += candidates
        try:
            yield
        finally:
            self._in_flight -= 1
            self._candidates_in_flight -= candidates

    def read(self) -> Reading:
        """The state now."""
        now = time.monotonic()
        self._past.append((now, self._finished, self._tokens))
        while len(self._past) > 2 and now - self._past[0][0] > WINDOW_SECONDS:
            self._past.popleft()
        then, finished, tokens = self._past[0]
        span = max(now - then, 1e-9)
        rate = (self._finished - finished) / span
        left = max(0, self.total - self.done - self.errors)
        return Reading(
            total=self.total,
            done=self.done,
            errors=self.errors,
            in_flight=self._in_flight,
            candidates_in_flight=self._candidates_in_flight,
            candidates=self._candidates,
            tokens=self._tokens,
            seconds=now - self._started,
            prompts_per_second=rate,
            tokens_per_second=(self._tokens - tokens) / span,
            eta_seconds=left / rate if rate > 0 else None,
        )
