"""A proxy's knowledge of a replica's candidates: the replica's own counts, and what was sent there since."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

UNUSED_SECONDS = 0.25
"""Longest time between a choice and its request's being sent; a choice that was not used is forgotten after it."""
KEPT_SECONDS = 5.0
"""Longest time that what was sent and answered is counted without a newer count of the replica's own."""


class Ledger:
    """A proxy's knowledge of one replica beyond that replica's own counts; instants are of the wall clock."""

    def __init__(self) -> None:
        self._chosen: deque[float] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def choose(self, now: float) -> None:
        """Count a choice at once, so that the next request of a burst is placed beside it."""
        self._chosen.append(now)

    def send(self, now: float) -> None:
        """Count a request that is sent, instead of its choice."""
        if self._chosen:
            self._chosen.popleft()
        self._changes.append((now, 1))

    def end(self, now: float) -> None:
        """Count a request that has ended."""
        self._changes.append((now, -1))

    def load(self, stats: Mapping[str, float], now: float) -> float:
        """Return the estimated candidates.

        `stats` are the replica's last counts: candidates, the requests that have them, K by default, and their time.
        """
        counted = max(stats.get("time", 0.0), now - KEPT_SECONDS)
        while self._changes and self._changes[0][0] <= counted:
            self._changes.popleft()
        while self._chosen and self._chosen[0] <= now - UNUSED_SECONDS:
            self._chosen.popleft()
        candidates, requests = stats.get("candidates", 0.0), stats.get("requests", 0.0)
        each = candidates / requests if candidates and requests else stats.get("default", 1.0)
        return candidates + each * (len(self._chosen) + sum(change for _, change in self._changes))
