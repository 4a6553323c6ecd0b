"""The routes. Each one checks, calls, and renders; what it calls is elsewhere."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any, Literal

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow.clients.wire import (
    ChatCompletion,
    ChatRequest,
    ErrorBody,
    ModelCard,
    ModelList,
    Rewards,
    RewardsRequest,
    Status,
    Version,
)
from winnow.models.errors import CandidateFailed, NoScoredCandidate, PromptTooLong
from winnow.models.types import Prompt, Reward
from winnow.server.http import errors, views
from winnow.server.http.chat import Chat, unless_dead, unless_gone
from winnow.server.http.metrics import Metrics
from winnow.server.http.requests import plan, render, require_model
from winnow.server.service import Service

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request has to be changed."},
    404: {"model": ErrorBody, "description": "The model is not served here."},
    500: {"model": ErrorBody, "description": "No candidate could be scored."},
    503: {"model": ErrorBody, "description": "An engine has died."},
}


class _JsonRequest(Request):
    """A request whose body is bounded, and parsed by orjson: that bounds nesting and refuses NaN and lone surrogates."""

    max_bytes: int

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > self.max_bytes:
                    raise HTTPException(413, f"the body exceeds this server's limit of {self.max_bytes} bytes")
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        return orjson.loads(await self.body())


def _route_class(max_bytes: int) -> type[APIRoute]:
    """Routes that bound their bodies and answer every exception through the one table."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                bounded = _JsonRequest(request.scope, request.receive)
                bounded.max_bytes = max_bytes
                try:
                    return await handle(bounded)
                except Exception as error:
                    # The boundary: whatever happened, the client gets an answer and the server goes on.
                    return errors.response(error)

            return handler

    return Route


def create_app(service: Service) -> FastAPI:
    """The ASGI application that serves `service`, whose engines run and have been warmed up."""
    app = FastAPI(title="Winnow", version=version("winnow-llm"), docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    metrics = Metrics()
    for routes in (_completions(service, metrics), _models(service), _operations(service, metrics)):
        app.include_router(routes)

    app.add_middleware(_CountRequests, metrics=metrics)
    return app


async def _answer_routing_error(_: Request, error: Exception) -> Response:
    """No such route, or no such method."""
    return errors.response(error)


class _CountRequests:
    """ASGI middleware that counts requests by route and status; it holds no body and adds no task."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                self.metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counting)


def _completions(service: Service, metrics: Metrics) -> APIRouter:
    router = APIRouter(route_class=_route_class(service.settings.max_body_bytes), responses=_ERRORS)

    @router.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a dialog with the best of K candidates."""
        chat = Chat(plan(body, service), service, metrics)
        if not body.stream:
            return await chat.complete(request)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        return chat.stream(include_usage=include_usage, separate_report=include_usage or body.best_of_n is not None)

    @router.post("/v1/rewards", response_model=Rewards)
    async def rewards(body: RewardsRequest, request: Request) -> Response:
        """Score given answers to a dialog."""
        require_model(body.model, service)
        prompt = render(body.messages, body.is_safety, service)
        answers = [service.template.encode_answer(answer) for answer in body.answers]
        for index, ids in enumerate(answers):
            if len(prompt) + len(ids) > service.context:
                raise PromptTooLong(
                    f"answers[{index}]: {len(prompt)} prompt and {len(ids)} answer tokens exceed the context of "
                    f"{service.context}",
                    "answers",
                )
        scored = await unless_gone(request, unless_dead(service, _rate(service, prompt, answers)))
        ratings = [views.rating(index, reward) for index, reward in enumerate(scored)]
        return _json(Rewards(model=service.settings.model_name, rewards=ratings))

    return router


async def _rate(service: Service, prompt: Prompt, answers: list[list[int]]) -> list[Reward]:
    try:
        return await asyncio.gather(*(service.pipeline.rate(prompt, ids) for ids in answers))
    except CandidateFailed as failure:
        raise NoScoredCandidate(str(failure)) from failure


def _models(service: Service) -> APIRouter:
    router = APIRouter(route_class=_route_class(service.settings.max_body_bytes), responses=_ERRORS)
    card = ModelCard(id=service.settings.model_name, created=int(time.time()))

    @router.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """List the served models: one."""
        return _json(ModelList(data=[card]))

    @router.get("/v1/models/{model:path}", response_model=ModelCard)
    async def model(model: str) -> Response:
        """Describe a served model."""
        require_model(model, service)
        return _json(card)

    return router


def _operations(service: Service, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/health", response_model=Status)
    async def health() -> Response:
        """Whether the engines run: 200, or 503 when one has died."""
        return _status("ok")

    @router.get("/ready", response_model=Status)
    async def ready() -> Response:
        """Whether requests are taken. The server listens only once warmed up, so it is ready as long as it is healthy."""
        return _status("ready")

    def _status(fine: Literal["ok", "ready"]) -> Response:
        return _json(Status(status=fine)) if service.is_alive else _json(Status(status="dead"), 503)

    @router.get("/metrics")
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/version", response_model=Version)
    async def show_version() -> Response:
        """The server's version."""
        return _json(Version(version=version("winnow-llm")))

    return router


def _json(body: BaseModel, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type="application/json")
