"""An OpenAI-compatible server as a system under test: chat completions over HTTP, whole or as a stream.

Every request is sent once: a retry would hide a refusal. Winnow is asked for K in its own words (`best_of_n`), any other server with `n`.
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
from winnow.clients.connection import TIMEOUT, Connection, refusal
from winnow.clients.errors import Overloaded, RefusedByServer, ShuttingDown
from winnow.loadtests.completions import Completion, NotACompletion, first_model
from winnow.loadtests.connection_pool import Lanes
from winnow.loadtests.errors import LoadTestError, ScenarioError
from winnow.loadtests.types import Ask, Reply, ReplyKind

Dialect = Literal["winnow", "openai"]
LONGEST_ERROR = 300
"""Characters of an error that are kept."""


class OpenAISystem:
    """A server; open it with `opened`, and close it."""

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
        """`url` ends in /v1; `name` is what reports call it, by default the model and where it is served.

        Raises:
            ValueError: the address or the key cannot be used, see `Connection`.
        """
        self._connection = Connection(url, api_key, timeout, retries=0)
        self._lanes = Lanes({**self._connection.http_options, "transport": transport})
        self._key = api_key
        self.url, self.model, self.dialect, self.stream = self._connection.base_url, model, dialect, stream
        self.name = name or f"{model} at {httpx.URL(self.url).netloc.decode()}"

    def __repr__(self) -> str:
        return f"OpenAISystem({self.url!r}, model={self.model!r}, dialect={self.dialect!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lanes.close()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a result says of it."""
        return {"url": self.url, "model": self.model, "dialect": self.dialect, "stream": self.stream}

    async def ask(self, ask: Ask) -> Reply:
        """Answer one request; see `System`."""
        call: Call[None] = Call("/v1/chat/completions", lambda *_: None, self._body(ask))
        try:
            async with asyncio.timeout(ask.leave_after) as patience:
                async with self._lanes.lane() as http:
                    return await self._exchange(http, call)
        except TimeoutError:
            if not patience.expired():
                raise
            return Reply("left", time.perf_counter())

    def _body(self, ask: Ask) -> bytes:
        body: dict[str, Any] = {"max_tokens": ask.max_tokens, **ask.options}
        body |= {"model": self.model, "messages": [dict(message) for message in ask.messages]}
        if ask.seed is not None:
            body["seed"] = ask.seed
        if self.dialect == "winnow":
            body["best_of_n"] = {"candidates": ask.candidates, **(ask.options.get("best_of_n") or {})}
        else:
            body["n"] = ask.candidates
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body, ensure_ascii=False).encode()

    async def _exchange(self, http: httpx.AsyncClient, call: Call[Any]) -> Reply:
        request = http.build_request(**self._connection.request(call))
        try:
            response = await http.send(request, stream=True)
            async with aclosing(response):
                if not response.is_success:
                    await response.aread()
                    return self._refused(refusal(call, response))
                completion = Completion(is_stream=self.stream)
                async for chunk in response.aiter_bytes():
                    completion.feed(chunk, time.perf_counter())
                return completion.reply(time.perf_counter())
        except httpx.RequestError as problem:
            return self._failed(self._connection.unanswered(problem))
        except (NotACompletion, RefusedByServer) as problem:
            return self._failed(problem)

    def _refused(self, error: RefusedByServer) -> Reply:
        """The reply for an error status; a 503 that tells when to come back is a refusal too."""
        turned_away = isinstance(error, Overloaded | ShuttingDown) or (
            error.status == 503 and error.code is None and error.retry_after is not None
        )
        details = {"status": error.status, "code": error.code, "retry_after": error.retry_after}
        return self._failed(error, "refused" if turned_away else "failed", details)

    def _failed(self, error: Exception, kind: ReplyKind = "failed", details: Mapping[str, Any] | None = None) -> Reply:
        text = str(error) or type(error).__name__
        if self._key:
            text = text.replace(self._key, "***")
        known = {name: value for name, value in (details or {}).items() if value is not None}
        shown = "".join(character if character.isprintable() else " " for character in text[:LONGEST_ERROR])
        return Reply(kind, time.perf_counter(), error=shown, details=known)


async def opened(
    url: str,
    *,
    api_key: str | None = None,
    model: str | None = None,
    dialect: Dialect | None = None,
    stream: bool = False,
    taken: Collection[str] = (),
    transport: httpx.AsyncBaseTransport | None = None,
) -> OpenAISystem:
    """A system at `url`; what is not given, the server is asked: its first model, and whether it is Winnow.

    Its name is none of those in `taken`.

    Raises:
        ScenarioError: the address or the key cannot be used.
        LoadTestError: the server does not answer, or lists no model.
    """
    try:
        if model is None or dialect is None:
            served, owner = await _served(Connection(url, api_key, TIMEOUT, retries=0), transport)
            model, dialect = model or served, dialect or ("winnow" if owner == "winnow" else "openai")
        system = OpenAISystem(url, model=model, dialect=dialect, api_key=api_key, stream=stream, transport=transport)
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    if system.name in taken:
        system.name += " (again)"
    return system


async def _served(connection: Connection, transport: httpx.AsyncBaseTransport | None) -> tuple[str, str | None]:
    """The first model of a server, and who owns it."""
    call = models()
    async with httpx.AsyncClient(transport=transport, **connection.http_options) as http:
        try:
            response = await http.send(http.build_request(**connection.request(call)))
            if not response.is_success:
                raise refusal(call, response)
            return first_model(response.content)
        except httpx.RequestError as problem:
            raise LoadTestError(str(connection.unanswered(problem))) from None
        except (NotACompletion, RefusedByServer) as error:
            raise LoadTestError(f"{connection.base_url}: {error}"[:LONGEST_ERROR]) from None
