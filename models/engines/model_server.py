"""A model server over HTTP, as an engine uses it: bounded, retried, and given up at once while it is known to be down.

Scoring changes nothing on the server, so a request may be sent again. What the whole server cannot do ends in
`ModelUnavailable`, and opens the circuit: until a probe in the background finds the server up again, every request is
refused before it is sent. What one answer does wrong ends in `CandidateFailed`. An answer of another form than the
API's, such as a proxy's page, may be either: a probe tells.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

from winnow.models.engines.base import PlainScorer
from winnow.models.engines.remote import MAX_BYTES, Link, RemoteModel, in_words
from winnow.models.errors import CandidateFailed, ModelUnavailable, WinnowError

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Times that a request is sent to a server that fails, within about a second."""
FIRST_PAUSE, PAUSE_FACTOR, LONGEST_PAUSE = 0.1, 3.0, 10.0
"""Seconds before a request is sent again, at most: 0.1, 0.3, 0.9; half to all of it, so that callers spread out."""
PROBE_SECONDS, PROBE_FACTOR, LONGEST_PROBE = 0.5, 1.5, 5.0
"""Seconds between two probes of a server that is down: 0.5, then half as long again each time, up to 5."""
PROBE_TIMEOUT = 15.0
_TOO_LONG = re.compile(r"maximum context length (?:is|of) \d{1,9}(?: tokens)?")
"""The part of a server's own message that is told: the rest of it may quote the request."""
_PLAIN_CODE = re.compile(r"[A-Za-z_]{1,60}")


class Transient(Exception):
    """A failure that may pass. `is_down` says that the server fails rather than being busy; `pause` is its own advice.

    `is_internal` says that the fault may lie in the request: the server fails on it, or takes too long.
    """

    def __init__(
        self, reason: str, *, is_down: bool = True, is_internal: bool = False, pause: float | None = None
    ) -> None:
        super().__init__(reason)
        self.is_down = is_down
        self.is_internal = is_internal
        self.pause = pause


class Malformed(Transient):
    """An answer of another form than the API's, such as a page of a proxy's, or half an answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, is_internal=True)


class Broken(Exception):
    """The server works and refuses all requests alike: another key, another model, another server."""


Found = TypeVar("Found")
Probe = Callable[[], Awaitable[None]]
"""Returns if the server serves the model. Raises `Transient`, `Broken` or a `WinnowError` if it does not."""


class ModelServer:
    """The server of the model `name`, on one event loop at a time. `probe` is asked while the circuit is open.

    `outage` is why it cannot be used for now; None while it can.
    """

    def __init__(self, name: str, link: Link, probe: Probe) -> None:
        self.name = name
        self.outage: str | None = None
        self.unfinished = 0
        self.retries = 0
        """Requests sent again, in all."""
        self._link = link
        self._probe = probe
        self._down_since = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, path: str, body: Any, read: Callable[[Any], Found]) -> Found:
        """Return what `read` finds in the JSON that the server answers to `body`.

        `read` raises `Malformed` if the JSON is of another form. Cancelling closes the request's connection.

        Raises:
            CandidateFailed: it refuses this request, or fails on it alone.
            ModelUnavailable: it does not answer, is overloaded, or refuses every request.
        """
        self._require_up()
        self._enter_loop()
        self.unfinished += 1
        try:
            async with self._places:
                return await self._persistently(path, body, read, time.monotonic() + self._link.seconds)
        finally:
            self.unfinished -= 1

    async def _persistently(self, path: str, body: Any, read: Callable[[Any], Found], deadline: float) -> Found:
        failures = busy = 0
        while True:
            self._require_up()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return read(await self.once("POST", path, body))
            except TimeoutError:
                late = Transient(f"no answer within {self._link.seconds:g} s", is_internal=True)
                raise await self._given_up(late, 0.0) from None
            except Broken as problem:
                raise self._open(str(problem)) from None
            except Transient as problem:
                failures += problem.is_down
                busy += not problem.is_down
                pause = _pause(failures if problem.is_down else busy, problem.pause)
                if failures >= ATTEMPTS or time.monotonic() + pause >= deadline:
                    raise await self._given_up(problem, pause) from None
            self.retries += 1
            await asyncio.sleep(pause)

    async def _given_up(self, problem: Transient, pause: float) -> WinnowError:
        """Return the error of a request that has been sent often enough: its own fault if a probe is answered."""
        if not problem.is_down:
            return ModelUnavailable(self.name, str(problem), min(60, max(1, math.ceil(pause))))
        if problem.is_internal and await self._failed_probe() is None:
            return CandidateFailed(f"the {self.name} model's server fails on this answer ({problem})")
        return self._open(str(problem))

    async def once(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request once, and return the JSON of its answer; `path` is appended to the server's URL.

        Raises:
            CandidateFailed, Transient, Broken: it has no such answer.
        """
        self._enter_loop()
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            async with self._http.stream(
                method, self._link.address.url + path, content=content, headers=headers
            ) as response:
                text = bytearray()
                async for part in response.aiter_bytes():
                    text += part
                    if len(text) > MAX_BYTES:
                        raise Malformed("it answers with too much")
        except httpx.HTTPError as error:
            is_late = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
            raise Transient(in_words(error), is_internal=is_late) from None
        return self._understood(response, bytes(text))

    def _understood(self, response: httpx.Response, text: bytes) -> Any:
        status = response.status_code
        if 200 <= status < 300:
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise Malformed("it answers with no JSON") from None
        if 300 <= status < 400:
            raise Broken(f"it answers with a redirect (status {status}), which is not followed")
        if status in (401, 403):
            raise Broken(f"it refuses the key (status {status})")
        if status in (404, 405):
            raise Broken(f"it no longer serves the model (status {status})")
        if status in (408, 425, 429):
            raise Transient(f"it is busy (status {status})", is_down=False, pause=_retry_after(response))
        if status >= 500:
            is_internal = status not in (502, 503, 504)
            raise Transient(f"status {status}", is_internal=is_internal, pause=_retry_after(response))
        raise CandidateFailed(f"the {self.name} model's server refuses this answer (status {status}){_reason(text)}")

    def _require_up(self) -> None:
        if self.outage:
            raise ModelUnavailable(self.name, self.outage)

    def _open(self, reason: str) -> ModelUnavailable:
        """Open the circuit, and return the error of the request that found out."""
        if not self.outage:
            logger.warning(
                "the %s reward model's server is down: %s; requests are refused meanwhile", self.name, reason
            )
            self._down_since = time.monotonic()
        self.outage = reason
        self._is_down.set()
        return ModelUnavailable(self.name, reason)

    async def _failed_probe(self) -> str | None:
        """Return why a probe failed; None if it did not."""
        try:
            await asyncio.wait_for(self._probe(), PROBE_TIMEOUT)
        except TimeoutError:
            return f"no answer within {PROBE_TIMEOUT:g} s"
        except (Transient, Broken, WinnowError) as problem:
            return str(problem)
        return None

    async def _attend(self, client: httpx.AsyncClient) -> None:
        """Probe the server whenever it is down, and close `client` when the loop ends."""
        try:
            while True:
                await self._is_down.wait()
                pause = PROBE_SECONDS
                while self.outage:
                    await asyncio.sleep(pause * random.uniform(0.5, 1))
                    pause = min(pause * PROBE_FACTOR, LONGEST_PROBE)
                    self.outage = await self._failed_probe()
                self._is_down.clear()
                seconds = time.monotonic() - self._down_since
                logger.warning("the %s reward model's server is up again, after %.0f s", self.name, seconds)
        finally:
            await client.aclose()
            await asyncio.sleep(0)  # for the transports to close, before the loop does

    def _enter_loop(self) -> None:
        """Make the client, and the task that attends to it, in the running loop."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for each request
        self._loop = loop
        self._http = httpx.AsyncClient(**self._link.client_options())
        self._places = asyncio.Semaphore(self._link.connections)
        self._is_down = asyncio.Event()
        if self.outage:
            self._is_down.set()
        self._keeper = loop.create_task(self._attend(self._http))


def _pause(failures: int, advised: float | None) -> float:
    """Return the seconds to wait: the server's advice, unless that is to come at once, or longer from time to time."""
    if advised is not None and advised >= FIRST_PAUSE:
        return min(advised, LONGEST_PAUSE)
    return float(min(FIRST_PAUSE * PAUSE_FACTOR ** (failures - 1), LONGEST_PAUSE) * random.uniform(0.5, 1))


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`; None without it, or if it is no number."""
    value = response.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value) else None


def _reason(text: bytes) -> str:
    """Return a server's own reason, if it is a code or a limit: other words may quote the request."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return ""
    if isinstance(code := error.get("code"), str) and _PLAIN_CODE.fullmatch(code):
        return f": {code}"
    message = error.get("message")
    limit = _TOO_LONG.search(message) if isinstance(message, str) else None
    return f": {limit[0]}" if limit else ""


class RemoteEngine(PlainScorer, ABC):
    """The common part of both kinds of remote engines: their status, and the model that their server serves."""

    def __init__(self, name: str, remote: RemoteModel, context: int) -> None:
        self.name = name
        self.remote = remote
        self.context = context
        self.server = ModelServer(name, remote.link, self.probe)

    @abstractmethod
    async def probe(self) -> None:
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
        """The reason why the server cannot be used for now; None while it can."""
        return self.server.outage

    @property
    def unfinished(self) -> int:
        """Requests that wait for an answer, or for a connection."""
        return self.server.unfinished

    async def is_stuck(self, seconds: float) -> bool:
        """Return False: each request has a time limit of its own."""
        return False

    def shutdown(self) -> None:
        """Do nothing: the server is not this process's, and the connections are closed as the loop ends."""
