"""The synchronous client. All it adds to `calls` and `connection` is to send, to wait and to read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from winnow.clients import calls
from winnow.clients.answers import Answer, Event
from winnow.clients.calls import Call, Dialog, Options
from winnow.clients.connection import BASE_URL, TIMEOUT, Connection, refusal, request_id, result
from winnow.clients.errors import ConnectionFailed, ServerError, TimedOut
from winnow.clients.retries import MAX_RETRIES
from winnow.clients.schema import ModelCard, Rating, Tokens
from winnow.clients.streams import StreamedAnswer

T = TypeVar("T")


class Client:
    """A Winnow server, to be asked; may be shared by threads.

    Args:
        base_url: the server's OpenAI address, ending in `/v1`.
        api_key: sent as `Authorization: Bearer`; never taken from the environment, and shown nowhere.
        timeout: seconds to connect, and of silence within an answer; a number for both.
        max_retries: how often a call is made again after it found no server, or one that was busy or failing. A call whose
            answer has begun is not made again. All tries of a call carry the same `X-Request-Id`.
        transport: an httpx transport, for proxies, certificates and tests; closed with the client.
        sleep: waits between retries, in seconds.

    Raises:
        ValueError: the address or the key is malformed.
    """

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout: httpx.Timeout | float | None = TIMEOUT,
        max_retries: int = MAX_RETRIES,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(base_url, api_key, timeout, max_retries)
        self._http = httpx.Client(transport=transport, **self._connection.http_options)
        self._sleep = sleep
        self._served: str | None = None
        self._asking = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({self._connection.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def answer(self, dialog: Dialog, **options: Unpack[Options]) -> Answer:
        """The best of K answers to `dialog`: one user message, or messages with `role` and `content`.

        Raises:
            WinnowClientError: see `winnow.clients.errors`.
            TypeError: an option is unknown.
        """
        return self._call(calls.completion(dialog, self._model(options.get("model")), options))

    def stream(
        self, dialog: Dialog, *, progress: bool = True, **options: Unpack[Options]
    ) -> Generator[Event, None, None]:
        """The same as events: `Progress` (if wanted) while candidates run, the answer in `Piece`s, and one `Answer`.

        Nothing is sent before the first event is asked for. Who leaves early ends the request by closing the generator, as
        `contextlib.closing` does. What fails after the answer has begun is raised, never tried again.

        Raises:
            WinnowClientError: as `answer`, and `StreamBroken`.
        """
        call = calls.streamed(dialog, self._model(options.get("model")), options, progress=progress)
        with closing(self._send(call)) as response:
            streamed = StreamedAnswer(request_id(call, response))
            with self._connection.reading_stream(streamed):
                for data in response.iter_bytes():
                    yield from streamed.feed(data)

    def rewards(
        self, dialog: Dialog, answers: Sequence[str], *, model: str | None = None, is_safety: bool | None = None
    ) -> list[Rating]:
        """What the reward models say of given answers to `dialog`, in their order."""
        return self._call(calls.rewards(dialog, answers, self._model(model), is_safety))

    def models(self) -> list[ModelCard]:
        """The served models: one. Its id is asked for once, and is then the default of every `model`."""
        return self._call(calls.models())

    def tokenize(self, text: Dialog, *, add_special_tokens: bool = True, return_token_strs: bool = False) -> Tokens:
        """The token ids of a text as it stands (BOS before it unless told otherwise), or of messages as the prompt has them."""
        return self._call(
            calls.tokenize(text, add_special_tokens=add_special_tokens, return_token_strs=return_token_strs)
        )

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return self._call(calls.detokenize(tokens))

    def health(self) -> bool:
        """Whether a server answers and its engines run; asked once, with a short timeout."""
        return self._probe("/health")

    def ready(self) -> bool:
        """Whether a server answers and takes requests; asked once, with a short timeout."""
        return self._probe("/ready")

    def _probe(self, path: str) -> bool:
        try:
            self._call(calls.probe(path))
        except (ConnectionFailed, TimedOut, ServerError):
            return False
        return True

    def _model(self, asked: str | None) -> str:
        if asked is not None:
            return asked
        with self._asking:
            if self._served is None:
                self._served = self.models()[0].id
            return self._served

    def _call(self, call: Call[T]) -> T:
        with closing(self._send(call)) as response:
            with self._connection.reading():
                response.read()
            return result(call, response)

    def _send(self, call: Call[Any]) -> httpx.Response:
        """The head of a success, after as many tries as it takes; whoever gets it closes it."""
        request = self._http.build_request(**self._connection.request(call))
        retried = 0
        while True:
            try:
                response = self._http.send(request, stream=True)
                if response.is_success:
                    return response
                with closing(response):
                    response.read()
                pause = self._connection.pause(call, refusal(call, response), retried)
            except httpx.RequestError as problem:
                pause = self._connection.pause(call, self._connection.unanswered(problem), retried)
            self._sleep(pause)
            retried += 1
