"""`POST /v1/chat/completions` and `POST /v1/completions`, plain and streamed: both render one selection."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from winnow.clients.schema import (
    BestOfNReport,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    ErrorBody,
    TextCompletion,
    TextRequest,
    Usage,
)
from winnow.models.errors import ClientGone, DeadlineExceeded
from winnow.models.types import Progress, Reduction, Selection
from winnow.server.aio import cancel, interrupted_by
from winnow.server.api import responses
from winnow.server.api.auth import caller
from winnow.server.api.documentation import ANSWER, BODY, REFUSED, STREAM
from winnow.server.api.errors import explain
from winnow.server.api.formats import ChatFormat, TextFormat
from winnow.server.api.logging import request_log
from winnow.server.api.metrics import Metrics
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.request_parsing import parse
from winnow.server.api.returned import Returned, returned
from winnow.server.pipeline.admission import Ticket
from winnow.server.pipeline.places import Places
from winnow.server.pipeline.rendering import RenderedRequest, in_thread_if_long
from winnow.server.service import Service
from winnow.server.store.rows import Served


def routes(service: Service, metrics: Metrics) -> APIRouter:
    """Return the two completion routes."""
    router = APIRouter(
        route_class=route_class(service.settings.max_body_bytes),
        strict_content_type=False,
        responses=REFUSED | BODY | ANSWER | STREAM,
    )

    @router.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a dialog with the best of K candidates."""
        return await _answer(body, request, service, metrics)

    @router.post("/v1/completions", response_model=TextCompletion)
    async def completions(body: TextRequest, request: Request) -> Response:
        """Continue a raw prompt with the best of K candidates."""
        return await _answer(body, request, service, metrics)

    return router


async def _answer(
    body: ChatRequest | TextRequest, http_request: Request, service: Service, metrics: Metrics
) -> Response:
    log = request_log(http_request.scope)
    service.require_engines()
    rendered = await parse(body, service, log.started)
    request = rendered.request
    deadline = request.early_stopping.deadline or math.inf
    ticket = service.admission.enter(log.flow, request.at_once, len(rendered.prompt), request.least_at_once, deadline)
    completion = Completion(rendered, body, ticket, http_request.scope, service, metrics)
    return completion.stream() if body.stream else await completion.complete(http_request)


class LatestProgress:
    """The latest progress of a selection: a slow reader skips outdated states."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._value: Progress | None = None

    def put(self, progress: Progress) -> None:
        """Replace the state."""
        self._value = progress
        self.news.set()

    def take(self) -> Progress:
        """Return the latest state, once."""
        assert self._value
        self.news.clear()
        return self._value


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: the rendered request, the body it came from, and its place in the queue."""

    rendered: RenderedRequest
    body: ChatRequest | TextRequest
    ticket: Ticket
    scope: Scope
    service: Service
    metrics: Metrics

    async def select(self, latest: LatestProgress | None = None) -> Selection:
        """Wait for admission and run the pipeline; the log, the metrics and the gains observe the selection."""
        selection = await self._selected(latest)
        self.metrics.observe(selection)
        request = self.rendered.request
        # Of requests that may be cut short, those that were not are the ones with poor rewards.
        if self.service.gains and not request.early_stopping.is_enabled:
            self.service.gains.observe(selection, request.waves)
        fields = request_log(self.scope).fields
        fields.update(responses.log_fields(selection))
        if self.service.settings.log_content:
            fields.update(responses.log_content(selection, self.service.tokenizer, self._refusal(selection)))
        return selection

    async def _selected(self, latest: LatestProgress | None) -> Selection:
        rendered, request = self.rendered, self.rendered.request
        async with in_turn(self.service, self.ticket) as queue_seconds:
            with (
                contextlib.closing(Places(self.ticket, request.least)) as places,
                self.metrics.candidates_in_flight(lambda: places.held),
            ):
                selection = await self.service.pipeline.select(
                    rendered.prompt,
                    rendered.sampling,
                    request.candidates if request.waves and not self.ticket.reduced_by else self.ticket.candidates,
                    request.combiner,
                    latest.put if latest else None,
                    early_stopping=request.early_stopping,
                    classifier=rendered.classifier,
                    waves=request.waves,
                    room=places,
                )
        return dataclasses.replace(
            selection,
            requested=request.requested,
            reduced_by=self._reduced_by or selection.reduced_by,
            timings=selection.timings.after(queue_seconds),
            truncated_by="deadline" if self.ticket.reduced_by == "deadline" else selection.truncated_by,
        )

    async def complete(self, http_request: Request) -> Response:
        """Return the whole answer in one body.

        Raises:
            ClientGone: the client left before it was ready.
        """
        async with interrupted_by(disconnected(http_request), ClientGone):
            selection = await self.select()
        wire_format = self._format()
        body = wire_format.body(self._returned(selection), self._usage(selection), self._report(selection))
        self._record(selection, wire_format)
        headers = {"Server-Timing": responses.server_timing(selection), **_headers(selection.reduced_by)}
        return json_response(body, headers=headers)

    def stream(self) -> Response:
        """Return the answer as server-sent events: an empty first chunk at once, the winner when it is known."""
        return _EventStream(self._events(), self.ticket, _headers(self._reduced_by))

    async def _events(self) -> AsyncGenerator[str, None]:
        latest = LatestProgress() if self.body.options.progress else None
        wire_format = self._format()
        selecting = asyncio.create_task(self.select(latest))
        try:
            yield _event(self._counted(wire_format.opening()))
            async for event in self._events_while(selecting, latest, wire_format):
                yield event
            selection = selecting.result()
            # Without log-probabilities the texts are cut at the borders of tokens, which they are encoded for.
            length = sum(len(item.candidate.text) for item in selection.ranked[: self.rendered.request.n])
            for event in await in_thread_if_long(lambda: self._final_events(selection, wire_format), length):
                yield event
            self._record(selection, wire_format)  # not before: who leaves during an answer has none
        except Exception as error:
            # The boundary of a stream: the headers are out, so any failure has to travel as an event.
            yield _event(ErrorBody(error=explain(error, self.scope)[1]))
        finally:
            cancel(selecting)
        yield "data: [DONE]\n\n"

    async def _events_while(
        self, selecting: asyncio.Task[Selection], latest: LatestProgress | None, wire_format: ChatFormat | TextFormat
    ) -> AsyncIterator[str]:
        """Yield progress while candidates run, if requested, and a comment after `keep_alive_seconds` of silence."""
        while not selecting.done():
            news = asyncio.create_task(latest.news.wait() if latest else asyncio.Event().wait())
            try:
                pause = self.service.settings.keep_alive_seconds
                done, _ = await asyncio.wait([selecting, news], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            finally:
                cancel(news)
            if not done:
                yield ": keep-alive\n\n"
            if latest and latest.news.is_set():
                yield _event(self._counted(wire_format.chunk([], report=responses.progress(latest.take()))))

    def _final_events(self, selection: Selection, wire_format: ChatFormat | TextFormat) -> list[str]:
        """Return the events from the winner's first piece to the last object.

        The `best_of_n` object has a chunk of its own with `choices: []` for clients that asked for something
        beyond OpenAI's plain stream. Other clients may index `choices[0]` in every chunk; for them it travels
        on the last finish chunk.
        """
        include_usage = bool(self.body.stream_options and self.body.stream_options.include_usage)
        is_separate = include_usage or self.body.best_of_n is not None
        answers, report = self._returned(selection), self._report(selection)
        events: list[ChatCompletionChunk | TextCompletion] = []
        for index, answer in enumerate(answers):
            is_last = index == len(answers) - 1
            events += wire_format.pieces(index, answer)
            events.append(wire_format.end(index, answer, report if is_last and not is_separate else None))
        if is_separate:
            events.append(wire_format.chunk([], report=report))
        if include_usage:
            events.append(wire_format.chunk([], usage=self._usage(selection)))
        return [_event(self._counted(chunk, selection)) for chunk in events]

    def _counted(
        self, chunk: ChatCompletionChunk | TextCompletion, selection: Selection | None = None
    ) -> ChatCompletionChunk | TextCompletion:
        """Return the chunk with the usage so far, if each chunk is to have it: the prompt's, until all is sampled."""
        options, prompt = self.body.stream_options, len(self.rendered.prompt)
        if not (options and options.continuous_usage_stats):
            return chunk
        usage = self._usage(selection) if selection else responses.usage_so_far(prompt)
        return chunk.model_copy(update={"usage": usage})

    def _format(self) -> ChatFormat | TextFormat:
        name, tokenizer = self.service.settings.model_name, self.service.tokenizer
        if isinstance(self.body, ChatRequest):
            return ChatFormat(name, tokenizer)
        return TextFormat(name, tokenizer, self.rendered.prompt.raw_text if self.body.echo else "")

    def _returned(self, selection: Selection) -> list[Returned]:
        return returned(selection, self.rendered.request.n, self._refusal(selection))

    def _record(self, selection: Selection, wire_format: ChatFormat | TextFormat) -> None:
        """Hand a chat answer that is complete to the recorder, if it is to be recorded."""
        recorder, body = self.service.recorder, self.body
        if recorder and isinstance(body, ChatRequest) and recorder.wants(body.store):
            recorder.put(
                Served(
                    id=wire_format.id,
                    created=wire_format.created,
                    model=wire_format.model,
                    selection=selection,
                    n=self.rendered.request.n,
                    temperature=self.rendered.sampling.temperature,
                    owner=caller(self.scope).holder,
                    user=body.user,
                    identifier=body.safety_identifier,
                    refusal=self._refusal(selection),
                )
            )

    @property
    def _reduced_by(self) -> Reduction | None:
        """The reason why K is smaller than requested, as far as it is known: the load decides on admission."""
        return "temperature" if self.rendered.request.is_reduced else self.ticket.reduced_by

    def _usage(self, selection: Selection) -> Usage:
        returned = self.rendered.request.n if self.body.options.usage == "winner" else None
        return responses.usage(selection, selection.prompt_tokens, returned)

    def _report(self, selection: Selection) -> BestOfNReport:
        with_texts = bool(self.body.options.return_candidates) and self._refusal(selection) is None
        gains = self.service.gains if (waves := self.rendered.request.waves) and waves.gain is not None else None
        return responses.report(selection, with_texts=with_texts, gains=gains.digest if gains else None)

    def _refusal(self, selection: Selection) -> str | None:
        """Return the refusal text if every candidate is unsafe and `when_all_unsafe` is "refuse", else None."""
        settings = self.service.settings
        return settings.refusal if selection.all_unsafe and settings.when_all_unsafe == "refuse" else None


class _EventStream(StreamingResponse):
    """Server-sent events that release their place in the queue even if the client leaves before the first event."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], ticket: Ticket, headers: Mapping[str, str]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        self.events = events
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.events.aclose()
            self.ticket.leave()


def _headers(reduced_by: Reduction | None) -> dict[str, str]:
    return {"X-Winnow-Reduced-By": reduced_by} if reduced_by else {}


def _event(body: BaseModel) -> str:
    return f"data: {body.model_dump_json()}\n\n"


@contextlib.asynccontextmanager
async def in_turn(service: Service, ticket: Ticket) -> AsyncIterator[float]:
    """Wait for admission and run the block; yield the wait in seconds. Releases the ticket on leaving.

    Raises:
        DeadlineExceeded: the server's time limit for a request has passed; the block has been cancelled.
        ModelUnavailable: a reward model on another server does not answer for now.
        WinnowError: the service's lifecycle has ended.
    """
    limit = service.settings.request_seconds
    entered = time.perf_counter()
    try:
        async with asyncio.timeout(limit) as deadline, service.lifecycle.guard():
            await ticket.admitted()
            service.require_engines()  # they may have gone while the request waited
            yield time.perf_counter() - entered
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"the request was not answered within {limit:g} s") from None
    finally:
        ticket.leave()


async def disconnected(request: Request) -> None:
    """Return once the client of `request` has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
