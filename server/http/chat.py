"""`POST /v1/chat/completions`, plain and streamed: two views of one selection."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from winnow.clients.wire import BestOfNReport, ChatCompletion, ChatCompletionChunk, ChunkChoice, Delta, ErrorBody, Usage
from winnow.models.errors import EngineDead
from winnow.models.types import Selection
from winnow.server.http import views
from winnow.server.http.errors import ClientGone, explain
from winnow.server.http.metrics import Metrics
from winnow.server.http.requests import Plan
from winnow.server.service import Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat completion: its plan, and what every body about it repeats."""

    plan: Plan
    service: Service
    metrics: Metrics
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def select(self) -> Selection:
        """Run the pipeline, observed by the metrics."""
        plan = self.plan
        selecting = self.service.pipeline.select(plan.prompt, plan.sampling, plan.candidates, plan.combiner)
        with self.metrics.candidates_in_flight(plan.candidates):
            selection = await unless_dead(self.service, selecting)
        self.metrics.observe(selection)
        return selection

    async def complete(self, request: Request) -> Response:
        """The whole answer in one body."""
        selection = await unless_gone(request, self.select())
        body = ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.service.settings.model_name,
            choices=views.choices(selection, self.plan.n),
            usage=views.usage(selection),
            best_of_n=self._report(selection),
        )
        headers = {"Server-Timing": views.server_timing(selection)}
        return Response(body.model_dump_json(), headers=headers, media_type="application/json")

    def stream(self, *, include_usage: bool, separate_report: bool) -> Response:
        """The answer as server-sent events: the role at once, the winner when it is known.

        `separate_report` sends the `best_of_n` object in a chunk of its own with `choices: []`. A client that has asked
        for nothing beyond OpenAI's plain stream may index `choices[0]` in every chunk; for it the object travels on the
        finish chunk.
        """
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        events = self._events(include_usage=include_usage, separate_report=separate_report)
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    async def _events(self, *, include_usage: bool, separate_report: bool) -> AsyncIterator[str]:
        selecting = asyncio.create_task(self.select())
        try:
            yield self._chunk([_change(index, "", "assistant") for index in range(self.plan.n)])
            while not (await asyncio.wait([selecting], timeout=self.service.settings.keep_alive_seconds))[0]:
                yield ": keep-alive\n\n"
            for event in self._answer(selecting.result(), include_usage, separate_report):
                yield event
        except Exception as error:
            # The boundary of a stream: the headers are out, so any failure has to travel as an event.
            yield f"data: {ErrorBody(error=explain(error)[1]).model_dump_json()}\n\n"
        finally:
            selecting.cancel()
        yield "data: [DONE]\n\n"

    def _answer(self, selection: Selection, include_usage: bool, separate_report: bool) -> list[str]:
        """The events from the winner's first word to the last object."""
        answers = selection.ranked[: self.plan.n]
        report = self._report(selection)
        events = [
            self._chunk([_change(index, piece)])
            for index, item in enumerate(answers)
            for piece in views.pieces(item.candidate.text)
        ]
        ends = [
            ChunkChoice(index=index, delta=Delta(), finish_reason=item.candidate.finish_reason)
            for index, item in enumerate(answers)
        ]
        events.append(self._chunk(ends, report=None if separate_report else report))
        if separate_report:
            events.append(self._chunk([], report=report))
        if include_usage:
            events.append(self._chunk([], usage=views.usage(selection)))
        return events

    def _report(self, selection: Selection) -> BestOfNReport:
        return views.report(selection, with_texts=self.plan.with_texts)

    def _chunk(
        self, choices: list[ChunkChoice], *, report: BestOfNReport | None = None, usage: Usage | None = None
    ) -> str:
        chunk = ChatCompletionChunk(
            id=self.id,
            created=self.created,
            model=self.service.settings.model_name,
            choices=choices,
            best_of_n=report,
            usage=usage,
        )
        return f"data: {chunk.model_dump_json()}\n\n"


def _change(index: int, content: str, role: Literal["assistant"] | None = None) -> ChunkChoice:
    return ChunkChoice(index=index, delta=Delta(role=role, content=content))


async def unless_gone(request: Request, work: Coroutine[None, None, T]) -> T:
    """Return what `work` returns, or abort it when the client of `request` leaves.

    Raises:
        ClientGone: the client left first.
    """
    return await _unless(_disconnected(request), ClientGone(), work)


async def unless_dead(service: Service, work: Coroutine[None, None, T]) -> T:
    """Return what `work` returns, or abort it when an engine of `service` has died.

    Raises:
        EngineDead: one has; what is left of the work could never be finished.
    """
    return await _unless(service.dead.wait(), EngineDead("an engine has died"), work)


async def _unless(interruption: Coroutine[None, None, object], error: Exception, work: Coroutine[None, None, T]) -> T:
    """Run `work` until it or `interruption` ends, and abort the other; raise `error` if the interruption came first."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(interruption)
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise error
        return task.result()
    finally:
        task.cancel()
        stop.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
