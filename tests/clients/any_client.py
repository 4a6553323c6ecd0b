"""Both clients behind one asynchronous interface, so that every test runs on both."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import httpx

from winnow.clients import AsyncClient, Client, Event

Kind = type[Client] | type[AsyncClient]
Open = Callable[..., AbstractAsyncContextManager["AnyClient"]]


@dataclass(frozen=True)
class AnyClient:
    """One of the two clients behind an asynchronous interface, with its pauses between retries."""

    client: Client | AsyncClient
    pauses: list[float]

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **options: Any) -> Any:
            result = getattr(self.client, name)(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        return call

    async def events(self, *arguments: Any, **options: Any) -> AsyncGenerator[Event, None]:
        """Yield the events of `stream`, which is closed together with this generator."""
        stream = self.client.stream(*arguments, **options)
        if isinstance(stream, Generator):
            with closing(stream):
                for event in stream:
                    yield event
        else:
            async with aclosing(stream):
                async for event in stream:
                    yield event


@asynccontextmanager
async def opened(kind: Kind, url: str, **options: Any) -> AsyncIterator[AnyClient]:
    """Open a client that does not sleep between retries and ignores proxies in the environment."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    options.setdefault("transport", httpx.HTTPTransport() if kind is Client else httpx.AsyncHTTPTransport())
    options["sleep"] = pauses.append if kind is Client else sleep
    client = kind(url, **options)
    opened_client = AnyClient(client, pauses)
    try:
        yield opened_client
    finally:
        await opened_client.close()
