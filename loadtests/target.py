"""An OpenAI-compatible server as a target: chat completions over HTTP, whole or streamed.

Every request is sent once, because a retry would hide a refusal. Winnow gets K in its own dialect
(`best_of_n`), any other server as `n`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Any, Literal, Self

import httpx

from winnow.clients.calls import Call, models
from winnow.clients.connection import TIMEOUT, Connection
from winnow.clients.errors import Overloaded, RefusedByServer, ShuttingDown, UnusableEnvironment
from winnow.loadtests.completions import CompletionParser, InvalidCompletion, first_model
from winnow.loadtests.connection_pool import ConnectionPool
from winnow.loadtests.errors import LoadTestError, ScenarioError
from winnow.loadtests.local_faults import local_fault
from winnow.loadtests.types import Reply, ReplyKind, Request

Dialect = Literal["winnow", "openai"]
MAX_ERROR = 300
"""Characters of an error message that are kept."""


class OpenAITarget:
    """A server as a target. Open it with `open_target`, and close it."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        dialect: Dialect,
        api_key: str | None = None,
        stream: bool = False,
        name: str | None = None,
        timeout: httpx.Timeout | float | None = TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Create a target at `url`, which ends in /v1; `name` in reports defaults to the model and the host.

        Raises:
            ValueError: the address or the key is malformed, see `Connection`.
        """
        self._connection = Connection(url, api_key, timeout, retries=0)
        self._pool = ConnectionPool(self._connection.http_options(transport))
        self._key = api_key
        self.url, self.model, self.dialect, self.stream = self._connection.base_url, model, dialect, stream
        self.name = name or _printable(f"{model} at {httpx.URL(self.url).netloc.decode()}")

    def __repr__(self) -> str:
        return f"OpenAITarget({self.url!r}, model={self.model!r}, dialect={self.dialect!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts about the target for a result."""
        return {"url": self.url, "model": self.model, "dialect": self.dialect, "stream": self.stream}

    async def send(self, request: Request) -> Reply:
        """Send one request; see `Target`."""
        call: Call[None] = Call("/v1/chat/completions", lambda *_: None, self._body(request))
        try:
            async with asyncio.timeout(request.leave_after) as time_limit:
                async with self._pool.connection() as http:
                    return await self._exchange(http, call)
        except TimeoutError:
            if not time_limit.expired():
                raise
            return Reply("left", time.perf_counter())

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any] = {"max_tokens": request.max_tokens, **request.options}
        body |= {"model": self.model, "messages": [dict(message) for message in request.messages]}
        if request.seed is not None:
            body["seed"] = request.seed
        if self.dialect == "winnow":
            body["best_of_n"] = {"candidates": request.candidates, **(request.options.get("best_of_n") or {})}
        else:
            body["n"] = request.candidates
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body, ensure_ascii=False).encode()

    async def _exchange(self, http: httpx.AsyncClient, call: Call[Any]) -> Reply:
        try:
            response = await http.send(http.build_request(**self._connection.request(call)), stream=True)
            async with aclosing(response):
                if not response.is_success:
                    await response.aread()
                    return self._refused(self._connection.refusal(call, response))
                parser = CompletionParser(is_stream=self.stream)
                async for chunk in response.aiter_bytes():
                    parser.feed(chunk, time.perf_counter())
                return parser.reply(time.perf_counter())
        except (httpx.RequestError, OSError) as problem:
            return self._failed(_unanswered(self._connection, problem))
        except (InvalidCompletion, RefusedByServer) as problem:
            return self._failed(problem)

    def _refused(self, error: RefusedByServer) -> Reply:
        """Return the reply for an error status; a 503 with `Retry-After` and without a code counts as refused too."""
        is_refused = isinstance(error, Overloaded | ShuttingDown) or (
            error.status == 503 and error.code is None and error.retry_after is not None
        )
        details = {"status": error.status, "code": error.code, "retry_after": error.retry_after}
        return self._failed(error, "refused" if is_refused else "failed", details)

    def _failed(self, error: Exception, kind: ReplyKind = "failed", details: Mapping[str, Any] | None = None) -> Reply:
        """Return the reply for an exception, its message shortened, printable, and without the API key."""
        text = str(error) or type(error).__name__
        if self._key:
            text = text.replace(self._key, "***")
        known = {name: value for name, value in (details or {}).items() if value is not None}
        return Reply(kind, time.perf_counter(), error=_printable(text[:MAX_ERROR]), details=known)


async def open_target(
    url: str,
    *,
    api_key: str | None = None,
    model: str | None = None,
    dialect: Dialect | None = None,
    stream: bool = False,
    taken: Collection[str] = (),
    transport: httpx.AsyncBaseTransport | None = None,
) -> OpenAITarget:
    """Open a server as a target. `model` defaults to its first model, `dialect` to what its model list suggests.

    The target gets a name that is not in `taken`.

    Raises:
        ScenarioError: the address or the key is malformed.
        LoadTestError: the server does not answer or lists no model, or the environment's proxy cannot be used.
    """
    try:
        if model is None or dialect is None:
            served, owner = await _served(Connection(url, api_key, TIMEOUT, retries=0), transport)
            model, dialect = model or served, dialect or ("winnow" if owner == "winnow" else "openai")
        target = OpenAITarget(url, model=model, dialect=dialect, api_key=api_key, stream=stream, transport=transport)
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    except UnusableEnvironment as error:
        raise LoadTestError(str(error)) from None
    if target.name in taken:
        target.name += " (again)"
    return target


async def _served(connection: Connection, transport: httpx.AsyncBaseTransport | None) -> tuple[str, str | None]:
    """Return the first model of a server, and its owner."""
    call = models()
    async with httpx.AsyncClient(**connection.http_options(transport)) as http:
        try:
            response = await http.send(http.build_request(**connection.request(call)))
            if not response.is_success:
                raise connection.refusal(call, response)
            return first_model(response.content)
        except (httpx.RequestError, OSError) as problem:
            raise LoadTestError(str(_unanswered(connection, problem))) from None
        except (InvalidCompletion, RefusedByServer) as error:
            raise LoadTestError(_printable(f"{connection.base_url}: {error}"[:MAX_ERROR])) from None


def _unanswered(connection: Connection, problem: httpx.RequestError | OSError) -> Exception:
    """Return the error for a request that got no response, which names this machine if the fault is its own."""
    if fault := local_fault(problem):
        return LoadTestError(fault)
    # httpx lets an error of the system through where it has to load a part of itself.
    return problem if isinstance(problem, OSError) else connection.unanswered(problem)


def _printable(text: str) -> str:
    """Return a server's text without characters that could control a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
