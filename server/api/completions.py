"""`POST /v1/chat/completions` and `POST /v1/completions`, plain and streamed: views of one selection."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from winnow.clients.schema import BestOfNReport, ErrorBody
from winnow.models.errors import ClientGone, DeadlineExceeded
from winnow.models.types import Progress, Selection
from winnow.server.api import views
from winnow.server.api.errors import explain
from winnow.server.api.metrics import Metrics
from winnow.server.api.middleware import record
from winnow.server.api.request_body import json_response
from winnow.server.api.request_parsing import Plan
from winnow.server.api.shapes import ChatShape, TextShape
from winnow.server.pipeline.admission import Ticket
from winnow.server.pipeline.lifecycle import give_up, unless
from winnow.server.service import Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: what is to be done, its place in the queue, and the shape of its answer."""

    plan: Plan
    shape: ChatShape | TextShape
    ticket: Ticket
    scope: Scope
    service: Service
    metrics: Metrics

    async def select(self, latest: _Latest | None = None) -> Selection:
        """Wait for admission and run the pipeline; observed by the log and the metrics."""
        plan, pipeline = self.plan, self.service.pipeline
        on_progress = latest.put if latest else None

        async def select() -> Selection:
            candidates = self.ticket.candidates
            with self.metrics.candidates_in_flight(candidates):
                return await pipeline.select(
                    plan.prompt, plan.sampling, candidates, plan.combiner, on_progress, dial=plan.dial
                )

        selection, queue = await in_turn(self.service, self.ticket, select)
        selection = dataclasses.replace(selection, timings=selection.timings.after(queue))
        if self.ticket.reduced_by == "deadline":
            selection = dataclasses.replace(selection, truncated_by="deadline")
        self.metrics.observe(selection, self.ticket)
        record(self.scope).fields.update(views.log_fields(selection, self.ticket))
        if self.service.settings.log_content:
            record(self.scope).fields.update(
                views.log_content(selection, self.service.template, self._refusal(selection))
            )
        return selection

    async def complete(self, request: Request) -> Response:
        """The whole answer in one body."""
        selection = await unless_gone(request, self.select())
        body = self.shape.body(self._answers(selection), views.usage(selection), self._report(selection))
        return json_response(body, headers={"Server-Timing": views.server_timing(selection)})

    def stream(self, *, include_usage: bool, separate_report: bool) -> Response:
        """The answer as server-sent events: an empty first chunk at once, the winner when it is known.

        `separate_report` sends the `best_of_n` object in a chunk of its own with `choices: []`. A client that has asked
        for nothing beyond OpenAI's plain stream may index `choices[0]` in every chunk; for it the object travels on the
        finish chunk.
        """
        return _EventStream(self._events(include_usage=include_usage, separate_report=separate_report), self.ticket)

    async def _events(self, *, include_usage: bool, separate_report: bool) -> AsyncGenerator[str, None]:
        latest = _Latest() if self.plan.progress else None
        selecting = asyncio.create_task(self.select(latest))
        try:
            yield _event(self.shape.opening())
            async for event in self._while(selecting, latest):
                yield event
            for event in self._answer(selecting.result(), include_usage, separate_report):
                yield event
        except Exception as error:
            # The boundary of a stream: the headers are out, so any failure has to travel as an event.
            yield _event(ErrorBody(error=explain(error, self.scope)[1]))
        finally:
            give_up(selecting)
        yield "data: [DONE]\n\n"

    async def _while(self, selecting: asyncio.Task[Selection], latest: _Latest | None) -> AsyncIterator[str]:
        """What is sent while candidates run: progress if it was asked for, and a comment whenever it has been quiet."""
        while not selecting.done():
            news = asyncio.create_task(latest.news.wait() if latest else asyncio.Event().wait())
            try:
                pause = self.service.settings.keep_alive_seconds
                done, _ = await asyncio.wait([selecting, news], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            finally:
                give_up(news)
            if not done:
                yield ": keep-alive\n\n"
            if latest and latest.news.is_set():
                yield _event(self.shape.chunk([], report=views.progress(latest.take())))

    def _answer(self, selection: Selection, include_usage: bool, separate_report: bool) -> list[str]:
        """The events from the winner's first word to the last object."""
        answers, report = self._answers(selection), self._report(selection)
        chunks = [*self.shape.pieces(answers), self.shape.end(answers, None if separate_report else report)]
        if separate_report:
            chunks.append(self.shape.chunk([], report=report))
        if include_usage:
            chunks.append(self.shape.chunk([], usage=views.usage(selection)))
        return [_event(chunk) for chunk in chunks]

    def _answers(self, selection: Selection) -> list[views.Returned]:
        return views.returned(selection, self.plan.n, self._refusal(selection))

    def _report(self, selection: Selection) -> BestOfNReport:
        return views.report(
            selection, self.ticket, with_texts=self.plan.with_texts and self._refusal(selection) is None
        )

    def _refusal(self, selection: Selection) -> str | None:
        """What is said instead of an answer, where nobody is safe and the operator wants none of them returned."""
        settings = self.service.settings
        return settings.refusal if selection.all_unsafe and settings.when_all_unsafe == "refuse" else None


class _Latest:
    """The newest progress: a slow reader skips what is outdated."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._value: Progress | None = None

    def put(self, progress: Progress) -> None:
        """Replace what there is."""
        self._value = progress
        self.news.set()

    def take(self) -> Progress:
        """The newest, once."""
        assert self._value
        self.news.clear()
        return self._value


class _EventStream(StreamingResponse):
    """Server-sent events whose place in the queue is given back even if the client has left before the first of them."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], ticket: Ticket) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self.events = events
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.events.aclose()
            self.ticket.leave()


def _event(body: BaseModel) -> str:
    return f"data: {body.model_dump_json()}\n\n"


async def in_turn(service: Service, ticket: Ticket, work: Callable[[], Coroutine[None, None, T]]) -> tuple[T, float]:
    """Wait for admission and do `work`, within the time limit and the service's life; also how long the wait was, in seconds.

    Raises:
        DeadlineExceeded: the server's limit for a request is over; the work has been aborted.
    """
    limit = service.settings.request_seconds
    entered = admitted = time.perf_counter()

    async def run() -> T:
        nonlocal admitted
        await ticket.admitted()
        admitted = time.perf_counter()
        return await work()

    try:
        async with asyncio.timeout(limit) as deadline:
            return await service.lifecycle.unless_over(run()), admitted - entered
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"the request was not answered within {limit:g} s") from None
    finally:
        ticket.leave()


async def unless_gone(request: Request, work: Coroutine[None, None, T]) -> T:
    """Return what `work` returns, or abort it when the client of `request` leaves.

    Raises:
        ClientGone: the client left first.
    """
    return await unless(_disconnected(request), ClientGone, work)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
