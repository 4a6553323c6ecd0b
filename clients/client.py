"""The synchronous client: sends, waits and reads. Requests and results are made in `calls` and `connection`."""

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
from winnow.clients.connection import BASE_URL, TIMEOUT, Connection, request_id
from winnow.clients.errors import ConnectionFailed, ServerError, TimedOut
from winnow.clients.retries import MAX_RETRIES
from winnow.clients.schema import CombinerName, ModelCard, Rating, Tokens, Version
from winnow.clients.streams import StreamedAnswer

T = TypeVar("T")


class Client:
    """A client of one Winnow server; threads may share it.

    Args:
        base_url: the server's OpenAI address, ending in `/v1`.
        api_key: sent as `Authorization: Bearer`; never read from the environment, and never shown.
        timeout: limits in seconds for connecting and for silence within an answer; a number sets both.
        max_retries: retries of a call that found no server, or one that was busy or failing. A call whose answer has
            begun is not retried. All attempts of a call carry the same `X-Request-Id`.
        transport: an httpx transport, for proxies, certificates and tests; closed with the client. Without one, the
            environment's proxies and certificates are used, as in curl; loopback addresses are reached directly.
        sleep: called with the seconds to wait between retries.

    Raises:
        ValueError: the address or the key is malformed.
        UnusableEnvironment: a variable for proxies or certificates that this address needs cannot be used.
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
        self._http = httpx.Client(**self._connection.http_options(transport))
        self._sleep = sleep
        self._served: str | None = None
        self._model_lock = threading.Lock()

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
        """Return the best of K answers to `dialog`: one user message, or messages with `role` and `content`.

        Raises:
            WinnowClientError: see `winnow.clients.errors`.
            TypeError: an option is unknown.
        """
        return self._call(calls.completion(dialog, self._model(options.get("model")), options))

    def stream(
        self, dialog: Dialog, *, progress: bool = True, **options: Unpack[Options]
    ) -> Generator[Event, None, None]:
        """Yield the events of an answer: `Progress` (if wanted) while candidates run, `Piece`s of text, one `Answer`.

        The request is sent when the first event is taken. To cancel it, close the generator, for example with
        `contextlib.closing`. A failure after the answer has begun is raised, never retried.

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
        self,
        dialog: Dialog,
        answers: Sequence[str],
        *,
        model: str | None = None,
        is_safety: bool | None = None,
        combiner: CombinerName | None = None,
        merge_turns: bool | None = None,
    ) -> list[Rating]:
        """Return the reward models' scores of `answers` to `dialog`, with their ranks, in the same order."""
        options = {"is_safety": is_safety, "combiner": combiner, "merge_turns": merge_turns}
        return self._call(calls.rewards(dialog, answers, self._model(model), options))

    def models(self) -> list[ModelCard]:
        """Return the served models; there is exactly one. Its id, fetched once, is the default of every `model`."""
        return self._call(calls.models())

    def version(self) -> Version:
        """Return the server's version, its default combiner, and which reward models are calibrated."""
        return self._call(calls.version())

    def tokenize(
        self,
        text: Dialog,
        *,
        add_special_tokens: bool = True,
        return_token_strs: bool = False,
        merge_turns: bool | None = None,
    ) -> Tokens:
        """Return the token ids of a text, by default with BOS before it, or of messages rendered by the template."""
        options = {
            "add_special_tokens": add_special_tokens,
            "return_token_strs": return_token_strs,
            "merge_turns": merge_turns,
        }
        return self._call(calls.tokenize(text, options))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self._call(calls.detokenize(tokens))

    def health(self) -> bool:
        """Whether a server answers and its engines run. One attempt, with a short timeout."""
        return self._probe("/health")

    def ready(self) -> bool:
        """Whether a server answers and accepts requests. One attempt, with a short timeout."""
        return self._probe("/ready")

    def _probe(self, path: str) -> bool:
        try:
            self._call(calls.probe(path))
        except (ConnectionFailed, TimedOut, ServerError):
            return False
        return True

    def _model(self, requested: str | None) -> str:
        if requested is not None:
            return requested
        with self._model_lock:
            if self._served is None:
                self._served = self.models()[0].id
            return self._served

    def _call(self, call: Call[T]) -> T:
        with closing(self._send(call)) as response:
            with self._connection.reading():
                response.read()
            return self._connection.result(call, response)

    def _send(self, call: Call[Any]) -> httpx.Response:
        """Return a successful response, its body unread, after as many retries as needed; the caller closes it."""
        request = self._http.build_request(**self._connection.request(call))
        retried = 0
        while True:
            try:
                response = self._http.send(request, stream=True)
                if response.is_success:
                    return response
                with closing(response):
                    response.read()
                pause = self._connection.pause(call, self._connection.refusal(call, response), retried)
            except httpx.RequestError as problem:
                pause = self._connection.pause(call, self._connection.unanswered(problem), retried)
            self._sleep(pause)
            retried += 1
