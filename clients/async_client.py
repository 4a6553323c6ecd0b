"""The client for asyncio: sends, waits and reads. Requests and results are made in `calls` and `connection`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from winnow.clients import calls
from winnow.clients.answers import Answer, Event
from winnow.clients.calls import Call, Dialog, Options
from winnow.clients.connection import BASE_URL, TIMEOUT, Connection, request_id
from winnow.clients.errors import ConnectionFailed, ServerError, TimedOut
from winnow.clients.retries import MAX_RETRIES
from winnow.clients.schema import CombinerName, ModelCard, Rating, Tokens, Version
from winnow.clients.streams import StreamedAnswer

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio, with the same arguments, methods and errors. Belongs to one event loop."""

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout: httpx.Timeout | float | None = TIMEOUT,
        max_retries: int = MAX_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = Connection(base_url, api_key, timeout, max_retries)
        self._http = httpx.AsyncClient(**self._connection.http_options(transport))
        self._sleep = sleep
        self._served: str | None = None
        self._model_lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def answer(self, dialog: Dialog, **options: Unpack[Options]) -> Answer:
        """See `Client.answer`. Cancelling it cancels the request."""
        return await self._call(calls.completion(dialog, await self._model(options.get("model")), options))

    async def stream(
        self, dialog: Dialog, *, progress: bool = True, **options: Unpack[Options]
    ) -> AsyncGenerator[Event, None]:
        """See `Client.stream`. To stop early, close the generator, for example with `contextlib.aclosing`."""
        call = calls.streamed(dialog, await self._model(options.get("model")), options, progress=progress)
        async with aclosing(await self._send(call)) as response:
            streamed = StreamedAnswer(request_id(call, response))
            with self._connection.reading_stream(streamed):
                async for data in response.aiter_bytes():
                    for event in streamed.feed(data):
                        yield event

    async def rewards(
        self,
        dialog: Dialog,
        answers: Sequence[str],
        *,
        model: str | None = None,
        is_safety: bool | None = None,
        combiner: CombinerName | None = None,
        merge_turns: bool | None = None,
    ) -> list[Rating]:
        """See `Client.rewards`."""
        options = {"is_safety": is_safety, "combiner": combiner, "merge_turns": merge_turns}
        return await self._call(calls.rewards(dialog, answers, await self._model(model), options))

    async def models(self) -> list[ModelCard]:
        """See `Client.models`."""
        return await self._call(calls.models())

    async def version(self) -> Version:
        """See `Client.version`."""
        return await self._call(calls.version())

    async def tokenize(
        self,
        text: Dialog,
        *,
        add_special_tokens: bool = True,
        return_token_strs: bool = False,
        merge_turns: bool | None = None,
    ) -> Tokens:
        """See `Client.tokenize`."""
        options = {
            "add_special_tokens": add_special_tokens,
            "return_token_strs": return_token_strs,
            "merge_turns": merge_turns,
        }
        return await self._call(calls.tokenize(text, options))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See `Client.detokenize`."""
        return await self._call(calls.detokenize(tokens))

    async def health(self) -> bool:
        """See `Client.health`."""
        return await self._probe("/health")

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._probe("/ready")

    async def _probe(self, path: str) -> bool:
        try:
            await self._call(calls.probe(path))
        except (ConnectionFailed, TimedOut, ServerError):
            return False
        return True

    async def _model(self, requested: str | None) -> str:
        if requested is not None:
            return requested
        async with self._model_lock:
            if self._served is None:
                self._served = (await self.models())[0].id
            return self._served

    async def _call(self, call: Call[T]) -> T:
        async with aclosing(await self._send(call)) as response:
            with self._connection.reading():
                await response.aread()
            return self._connection.result(call, response)

    async def _send(self, call: Call[Any]) -> httpx.Response:
        """Return a successful response, its body unread, after as many retries as needed; the caller closes it."""
        request = self._http.build_request(**self._connection.request(call))
        retried = 0
        while True:
            try:
                response = await self._http.send(request, stream=True)
                if response.is_success:
                    return response
                async with aclosing(response):
                    await response.aread()
                pause = self._connection.pause(call, self._connection.refusal(call, response), retried)
            except httpx.RequestError as problem:
                pause = self._connection.pause(call, self._connection.unanswered(problem), retried)
            await self._sleep(pause)
            retried += 1
