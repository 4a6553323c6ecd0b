"""The servers of one model over HTTP, as an engine uses them: bounded, retried, and passed over while they are down.

One or several, a pool, of which the least busy is asked. Scoring and sampling change nothing on a server, so a request
may be sent again, to another server at once. A server that fails is down (`endpoint`) until a probe in the background
finds it up again. When none is left, every request is refused before it is sent, with `ModelUnavailable`. What one
answer does wrong ends in `CandidateFailed`. An answer of another form than the API's, such as a proxy's page, may be
either: a probe tells.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from winnow.models.engines.base import PlainScorer
from winnow.models.engines.endpoint import NOT_SEEN, Broken, Endpoint, Malformed, Probe, Refused, TooMuch, Transient
from winnow.models.engines.remote import MAX_BYTES, RemoteModel, model_name
from winnow.models.errors import CandidateFailed, WinnowError, unavailable

__all__ = ["Broken", "Endpoint", "Malformed", "ModelServer", "Refused", "RemoteEngine", "RemoteScorer", "Transient"]

ATTEMPTS = 4
"""Times that a request is sent to servers that fail, within about a second."""
FIRST_PAUSE, PAUSE_FACTOR, LONGEST_PAUSE = 0.1, 3.0, 10.0
"""Seconds before a request is sent again to a server that gives no advice: at most 0.1, 0.3, 0.9, up to 10; half to all
of it, so that callers spread out."""

Found = TypeVar("Found")
Attempt = Callable[[Endpoint], Awaitable[Found]]
"""Sends a request once, and reads its answer. Raises `Transient`, `Broken` or a `WinnowError`."""


def _always() -> bool:
    return True


@dataclass(slots=True)
class _Call:
    """One request and what has become of it so far."""

    deadline: float
    may_repeat: Callable[[], bool]
    failed: Counter[Endpoint] = field(default_factory=Counter)
    """Failures by server."""
    busy: int = 0


class ModelServer:
    """The servers of the model `name`. `probe` is asked of one that is down."""

    def __init__(self, name: str, remote: RemoteModel, probe: Probe) -> None:
        self.name = name
        self.retries = 0
        """Requests sent again, in all."""
        self._link = remote.link
        self.endpoints = tuple(
            Endpoint(name, remote.link, address, probe, NOT_SEEN if address in remote.absent else None)
            for address in remote.link.addresses
        )

    @property
    def down(self) -> list[str]:
        """The reasons of the servers that cannot be used for now."""
        return [endpoint.outage for endpoint in self.endpoints if endpoint.outage]

    @property
    def outage(self) -> str | None:
        """The reason why no server can be used for now; None while one can."""
        down = self.down
        return "; ".join(dict.fromkeys(down)) if len(down) == len(self.endpoints) else None

    @property
    def unfinished(self) -> int:
        """Requests that wait for an answer, or for a connection."""
        return sum(endpoint.unfinished for endpoint in self.endpoints)

    async def post(self, path: str, body: Any, read: Callable[[Any], Found], most: int = MAX_BYTES) -> Found:
        """Return what `read` finds in the JSON that a server answers to `body`, in at most `most` bytes.

        `read` raises `Malformed` if the JSON is of another form. Cancelling closes the request's connection.

        Raises:
            CandidateFailed: a server refuses this request, or fails on it alone.
            ModelUnavailable: none answers, they are overloaded, or refuse every request.
        """

        async def attempt(endpoint: Endpoint) -> Found:
            return read(await endpoint.once("POST", path, body, most))

        return await self.call(attempt)

    async def call(self, attempt: Attempt[Found], may_repeat: Callable[[], bool] = _always) -> Found:
        """Return what `attempt` finds on the least busy server, or on another if that fails; raises as `post`.

        `may_repeat` says whether a request that has failed may still be sent again.
        """
        call = _Call(math.inf, may_repeat)
        while True:
            endpoint = self._least_busy(call)
            async with endpoint.place():
                if endpoint.outage and not self.outage:
                    continue  # it went down while this waited for a place
                self._require_up()
                if call.deadline == math.inf:
                    call.deadline = time.monotonic() + self._link.seconds
                pause = await self._wait_for(endpoint, call)
                if pause is None:
                    try:
                        async with endpoint.within(call.deadline):
                            found = await attempt(endpoint)
                        endpoint.note(None, has_others=True)
                        return found
                    except (TimeoutError, Broken, Transient) as problem:
                        pause = await self._next(endpoint, problem, call)
                    self.retries += 1
            await asyncio.sleep(pause)

    async def _wait_for(self, endpoint: Endpoint, call: _Call) -> float | None:
        """Return the seconds that the server still wants to be left alone; None if it can be asked."""
        pause = endpoint.busy_until - time.monotonic()
        if pause <= 0:
            return None
        if endpoint.busy_until >= call.deadline:
            raise unavailable(self.name, "it is busy (status 429)", _seconds(pause))
        return pause

    async def _next(self, endpoint: Endpoint, problem: Exception, call: _Call) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            CandidateFailed, ModelUnavailable: there is none.
        """
        others = [other for other in self.endpoints if other is not endpoint and not other.outage]
        if isinstance(problem, Broken):
            endpoint.open(str(problem))
            if others and call.may_repeat():
                return 0.0
            raise unavailable(self.name, str(problem)) from None
        if isinstance(problem, TimeoutError):
            if endpoint.outage:
                problem = Transient(endpoint.outage)  # it was found to hang
            else:
                late = Transient(f"no answer within {self._link.seconds:g} s", is_internal=True)
                raise await self._given_up(endpoint, late, 0.0) from None
        if isinstance(problem, TooMuch):  # so it would be again
            raise await self._given_up(endpoint, problem, 0.0) from None
        assert isinstance(problem, Transient)
        endpoint.note(problem, has_others=bool(others))
        call.failed[endpoint] += problem.is_down
        call.busy += not problem.is_down
        if not call.may_repeat():
            name = model_name(self.name)
            raise CandidateFailed(f"the {name}'s server failed within an answer that cannot be repeated") from None
        now = time.monotonic()
        pause = _pause(call.failed.total() if problem.is_down else call.busy, problem.pause)
        # Another server may be free sooner.
        pause = min([pause, *(max(0.0, other.busy_until - now) for other in others if not call.failed[other])])
        if call.failed.total() < ATTEMPTS and now + pause < call.deadline:
            return pause
        raise await self._given_up(endpoint, problem, pause) from None

    def _least_busy(self, call: _Call) -> Endpoint:
        """Return the server to ask next.

        Raises:
            ModelUnavailable: all are down.
        """
        for endpoint in self.endpoints:
            endpoint.enter_loop()
        self._require_up()
        now = time.monotonic()

        def burden(endpoint: Endpoint) -> tuple[float, int, int, float]:
            return max(0.0, endpoint.busy_until - now), call.failed[endpoint], endpoint.unfinished, random.random()

        return min((endpoint for endpoint in self.endpoints if not endpoint.outage), key=burden)

    async def _given_up(self, endpoint: Endpoint, problem: Transient, pause: float) -> WinnowError:
        """Return the error of a request that has been sent often enough: its own fault if a probe is answered."""
        if not problem.is_down:
            return unavailable(self.name, str(problem), _seconds(pause))
        if problem.is_internal and await endpoint.failed_probe() is None:
            return CandidateFailed(f"the {model_name(self.name)}'s server fails on this {endpoint.subject} ({problem})")
        endpoint.open(str(problem))
        return unavailable(self.name, str(problem))

    def _require_up(self) -> None:
        if outage := self.outage:
            raise unavailable(self.name, outage)


def _seconds(pause: float) -> int:
    """Return the seconds of a `Retry-After`."""
    return min(60, max(1, math.ceil(pause)))


def _pause(failures: int, advised: float | None) -> float:
    """Return the seconds to wait: the server's advice, unless that is to come at once, or longer from time to time."""
    if advised is not None and advised >= FIRST_PAUSE:
        return advised
    return float(min(FIRST_PAUSE * PAUSE_FACTOR ** (failures - 1), LONGEST_PAUSE) * random.uniform(0.5, 1))


class RemoteEngine(ABC):
    """The common part of engines on other servers: their status, and the model that their servers serve."""

    def __init__(self, name: str, remote: RemoteModel, context: int) -> None:
        self.name = name
        self.remote = remote
        self.context = context
        self.server = ModelServer(name, remote, self.probe)

    @abstractmethod
    async def probe(self, server: Endpoint) -> None:
        """Return if the server serves the model; see `Probe`."""

    @property
    def dtype(self) -> str:
        """The precision, which a server does not tell."""
        return "remote"

    @property
    def is_alive(self) -> bool:
        """Whether it may answer again: always. `outage` says whether it can for now."""
        return True

    @property
    def outage(self) -> str | None:
        """The reason why no server can be used for now; None while one can."""
        return self.server.outage

    @property
    def unfinished(self) -> int:
        """Requests that wait for an answer, or for a connection."""
        return self.server.unfinished

    async def is_stuck(self, seconds: float) -> bool:
        """Return False: each request has a time limit of its own."""
        return False

    def shutdown(self) -> None:  # noqa: B027, nothing is to be done
        """Do nothing: the servers are not this process's, and connections are closed by `Endpoint.leave_loop`."""


class RemoteScorer(PlainScorer, RemoteEngine):
    """The common part of reward models on other servers."""
