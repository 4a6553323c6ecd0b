"""One model server over HTTP: its connections, its circuit, and the probes that close it again.

While the circuit is open nothing is sent but probes. They come from a task in the background, which also looks after a
server that is busy and has been silent for long, as one that hangs is.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import logging
import random
import re
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from winnow.models.engines.addresses import Address
from winnow.models.engines.remote import MAX_BYTES, Link, from_json, in_words, model_name
from winnow.models.errors import CandidateFailed, WinnowError

logger = logging.getLogger(__name__)

PROBE_SECONDS, PROBE_FACTOR, LONGEST_PROBE = 0.5, 1.5, 2.0
"""Seconds between two probes of a server that is down: 0.5, then half as long again each time, up to 2."""
PROBE_TIMEOUT = 15.0
SILENT_SECONDS = 10.0
"""Seconds of silence after which a server with requests is asked whether it is there."""
DOUBTS = 2
"""Failures in a row that raise a doubt about a server rather than about a request."""
NOT_SEEN = "it has not answered yet"
_TOO_LONG = re.compile(r"maximum context length (?:is|of) \d{1,9}(?: tokens)?")
"""The part of a server's own message that is told: the rest of it may quote the request."""
_PLAIN_CODE = re.compile(r"[A-Za-z_]{1,60}")


class Transient(Exception):
    """A failure that may pass. `is_down` says that the server fails rather than being busy; `pause` is its own advice.

    `is_internal` says that the fault may lie in the request: the server fails on it, or takes too long. `is_refused`
    says that there was no connection, so that nothing was sent.
    """

    def __init__(
        self,
        reason: str,
        *,
        is_down: bool = True,
        is_internal: bool = False,
        is_refused: bool = False,
        pause: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.is_down = is_down
        self.is_internal = is_internal
        self.is_refused = is_refused
        self.pause = pause


class Malformed(Transient):
    """An answer of another form than the API's, such as a page of a proxy's, or half an answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, is_internal=True)


class TooMuch(Malformed):
    """An answer that is larger than any that was asked for; asked again, it would be as large."""

    def __init__(self, most: int) -> None:
        super().__init__(f"it answers with too much, more than {most >> 20} MiB")


class Broken(Exception):
    """The server works and refuses all requests alike: another key, another model, another server."""


class Refused(CandidateFailed):
    """The server refuses one request; `status` and `told` are its answer, which is never shown."""

    def __init__(self, message: str, status: int, told: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.told = told


Probe = Callable[["Endpoint"], Awaitable[None]]
"""Returns if the server serves the model. Raises `Transient`, `Broken` or a `WinnowError` if it does not."""


class Endpoint:
    """The server of the model `name` at `address`, on one event loop at a time.

    `outage` is why it cannot be used for now; None while it can. `probe` is asked while it is not None.
    """

    def __init__(self, name: str, link: Link, address: Address, probe: Probe, outage: str | None = None) -> None:
        self.name = name
        self.address = address
        self.outage = outage
        self.unfinished = 0
        self.failures = 0
        """Failures since the last answer."""
        self.busy_until = 0.0
        """Time before which it has asked not to be asked."""
        self._link = link
        self._probe = probe
        self._down_since = time.monotonic()
        self._heard = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limits: set[asyncio.Timeout] = set()
        """Time limits of the requests that are answered now."""

    @property
    def subject(self) -> str:
        """The object of a request in messages: an answer to score, or else the request itself."""
        return "request" if self.name == "policy" else "answer"

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until the server has fewer requests than connections, and count one more in the block."""
        self.enter_loop()
        self.unfinished += 1
        try:
            async with self._places:
                yield
        finally:
            self.unfinished -= 1

    @contextlib.asynccontextmanager
    async def within(self, deadline: float) -> AsyncIterator[None]:
        """End the block with a `TimeoutError` at `deadline`, or as soon as the server is found to hang."""
        if self.unfinished == 1:
            self._heard = time.monotonic()
        async with asyncio.timeout(deadline - time.monotonic()) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def once(self, method: str, path: str, body: Any = None, most: int = MAX_BYTES) -> Any:
        """Send a request once, and return the JSON of its answer, of at most `most` bytes.

        `path` is appended to the server's URL.

        Raises:
            CandidateFailed, Transient, Broken: it has no such answer.
        """
        async with self._sent(method, path, body) as response:
            text = await self._text(response, most)
        return self._understood(response, text)

    async def events(self, path: str, body: Any) -> AsyncGenerator[Any, None]:
        """Post `body` once, and yield the JSON of each event of the answer's stream, up to its `[DONE]`.

        Raises:
            CandidateFailed, Transient, Broken: it has no such answer, or the stream ends before.
        """
        async with self._sent("POST", path, body) as response:
            if response.status_code != 200:
                self._understood(response, await self._text(response))
                raise Malformed(f"status {response.status_code} in place of a stream")
            async for line in response.aiter_lines():
                self._hear()
                if not line.startswith("data:"):
                    continue
                if (data := line[5:].strip()) == "[DONE]":
                    return
                try:
                    yield from_json(data.encode())
                except (ValueError, RecursionError):
                    raise Malformed("its stream has an event that is no JSON") from None
        raise Transient("its stream ends before the answer does")

    @contextlib.asynccontextmanager
    async def _sent(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        self.enter_loop()
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            async with self._http.stream(method, self.address.url + path, content=content, headers=headers) as response:
                self._hear()
                yield response
        except httpx.HTTPError as error:
            is_late = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
            is_refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise Transient(in_words(error), is_internal=is_late, is_refused=is_refused) from None

    async def _text(self, response: httpx.Response, most: int = MAX_BYTES) -> bytes:
        """Return the answer's body; of an error's, which its status tells enough of, perhaps only the beginning."""
        text = bytearray()
        async for part in response.aiter_bytes():
            text += part
            if len(text) > most:
                if response.is_success:
                    raise TooMuch(most)
                break
        return bytes(text)

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def _understood(self, response: httpx.Response, text: bytes) -> Any:
        status = response.status_code
        if 200 <= status < 300:
            try:
                return from_json(text)
            except (ValueError, RecursionError):
                raise Malformed("it answers with no JSON") from None
        if 300 <= status < 400:
            raise Broken(f"it answers with a redirect (status {status}), which is not followed")
        if status in (401, 403):
            raise Broken(f"it refuses the key (status {status})")
        if status in (404, 405):
            raise Broken(f"it no longer serves the model (status {status})")
        if status == 429 and _reason(text) == ": insufficient_quota":
            raise Broken("its quota is used up (status 429)")
        if status in (408, 425, 429):
            raise Transient(f"it is busy (status {status})", is_down=False, pause=_retry_after(response))
        if status >= 500:
            is_internal = status not in (502, 503, 504)
            raise Transient(f"status {status}", is_internal=is_internal, pause=_retry_after(response))
        message = f"the {model_name(self.name)}'s server refuses this {self.subject} (status {status}){_reason(text)}"
        raise Refused(message, status, text)

    def note(self, problem: Transient | None, *, has_others: bool) -> None:
        """Note that a request was answered, or failed; with other servers to go to, the circuit opens sooner."""
        if problem is None:
            self.failures = 0
        elif not problem.is_down:
            self.busy_until = time.monotonic() + (problem.pause or 0.0)
        elif has_others:
            self.failures += 1
            if problem.is_refused or (self.failures >= DOUBTS and not problem.is_internal):
                self.open(str(problem))
            elif self.failures >= DOUBTS:
                self._is_doubted.set()

    def open(self, reason: str) -> None:
        """Open the circuit: until a probe in the background finds the server up again, nothing is sent to it."""
        if not self.outage:
            logger.warning("the %s's server at %s is down: %s", model_name(self.name), self.address.url, reason)
            self._down_since = time.monotonic()
        self.outage = reason
        self._is_doubted.set()

    async def failed_probe(self) -> str | None:
        """Return why a probe failed; None if it did not."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):  # `wait_for` may swallow a cancellation
                await self._probe(self)
        except TimeoutError:
            return f"no answer within {PROBE_TIMEOUT:g} s"
        except (Transient, Broken, WinnowError) as problem:
            return str(problem)
        except Exception as error:  # a boundary, as `_attend`: what a server says must never end the probes of it
            self._log_unexpected(error)
            return f"a probe of it fails ({type(error).__name__})"
        return None

    def _log_unexpected(self, error: Exception) -> None:
        """Log the kind and the place of an error; its message may quote a request."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} in {place.name}, line {place.lineno}"
        logger.warning("asking the %s's server at %s failed: %s", model_name(self.name), self.address.url, what)

    async def _attend(self, client: httpx.AsyncClient) -> None:
        """Probe the server whenever it is down or doubted, and close `client` when the loop ends."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SILENT_SECONDS / 2):
                        await self._is_doubted.wait()
                try:
                    await self._look_after()
                except Exception as error:  # the boundary of the task: without it an open circuit would never close
                    self._log_unexpected(error)
                self._is_doubted.clear()
        finally:
            await client.aclose()
            await asyncio.sleep(0)  # for the transports to close, before the loop does

    async def _look_after(self) -> None:
        """Open the circuit if there is a fault, and return once it is closed."""
        if not self.outage and (reason := await self._fault()):
            self.open(reason)
            for limit in self._limits:  # what hangs there is done elsewhere
                with contextlib.suppress(RuntimeError):  # it ends just now
                    limit.reschedule(0)
        if self.outage:
            await self._recovery()

    async def _fault(self) -> str | None:
        """Return why a server that is doubted, or has been silent for long, cannot be used; None if it can."""
        if self._is_doubted.is_set():
            self.failures = 0
            return await self.failed_probe()
        if not self._limits or time.monotonic() - self._heard < SILENT_SECONDS:
            return None
        # Only whether it is there: a request of its own would wait behind the others.
        with contextlib.suppress(Transient, Broken, WinnowError, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self.once("GET", self.address.models.removeprefix(self.address.url))
        return None if time.monotonic() - self._heard < PROBE_TIMEOUT else "it does not answer any more"

    async def _recovery(self) -> None:
        """Probe a server that is down until it is up."""
        pause = PROBE_SECONDS
        while self.outage:
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * PROBE_FACTOR, LONGEST_PROBE)
            self.outage = await self.failed_probe()
        self.failures = 0
        seconds = time.monotonic() - self._down_since
        logger.warning(
            "the %s's server at %s is up again, after %.0f s", model_name(self.name), self.address.url, seconds
        )

    def enter_loop(self) -> None:
        """Make the client, and the task that attends to it, in the running loop."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for each request
        self._loop = loop
        self._http = httpx.AsyncClient(**self._link.client_options(self.address))
        self._places = asyncio.Semaphore(self._link.connections)
        self._is_doubted = asyncio.Event()
        self._limits = set()
        if self.outage:
            self._is_doubted.set()
        self._keeper = loop.create_task(self._attend(self._http))

    async def leave_loop(self) -> None:
        """End what `enter_loop` began in the running loop, and wait for it.

        Ended by the loop's own end instead, a connection that is just being made would be reported as never awaited.
        """
        if self._loop is asyncio.get_running_loop():
            self._loop = None
            self._keeper.cancel()
            await asyncio.wait([self._keeper])


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`, which may be a date; None without it, or if it is neither, or is past."""
    value = response.headers.get("retry-after", "")
    if re.fullmatch(r"\d{1,6}(\.\d+)?", value):
        return float(value)
    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def _reason(text: bytes) -> str:
    """Return a server's own reason, if it is a code or a limit: other words may quote the request."""
    try:
        body = from_json(text)
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
