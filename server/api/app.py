"""The routes. Each one checks, calls, and renders; what it calls is elsewhere."""

import asyncio
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from winnow.clients.schema import (
    ChatCompletion,
    ChatRequest,
    Detokenized,
    DetokenizeRequest,
    ErrorBody,
    ModelCard,
    ModelList,
    Rewards,
    RewardsRequest,
    Status,
    TextCompletion,
    TextRequest,
    TokenizeRequest,
    Tokens,
    Version,
)
from winnow.models.errors import CandidateFailed, NoScoredCandidate, PromptTooLong, WinnowError, root_cause
from winnow.models.types import Prompt, Reward
from winnow.server.api import errors, views
from winnow.server.api.auth import ApiKeys
from winnow.server.api.completions import Completion, in_turn, unless_gone
from winnow.server.api.metrics import Metrics
from winnow.server.api.middleware import Front, record
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.request_parsing import encode, plan, render, require_model, require_tokens
from winnow.server.api.shapes import ChatShape, TextShape
from winnow.server.service import Service

_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request has to be changed."},
    401: {"model": ErrorBody, "description": "A valid API key is needed."},
    431: {"model": ErrorBody, "description": "The head is too large."},
    503: {"model": ErrorBody, "description": "The server is shutting down, or an engine has died."},
}
_BODY: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "The model is not served here."},
    408: {"model": ErrorBody, "description": "The request took too long to arrive."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    415: {"model": ErrorBody, "description": "The body is not plain JSON."},
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    429: {"model": ErrorBody, "description": "The queue is full; see Retry-After."},
    500: {"model": ErrorBody, "description": "No candidate could be scored."},
    504: {"model": ErrorBody, "description": "The request was not answered in time."},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The answer, or its stream."}
}


def create_app(service: Service, keys: ApiKeys | None = None) -> FastAPI:
    """The ASGI application that serves `service`, whose engines run and have been warmed up, to the holders of `keys`."""
    app = FastAPI(title="Winnow", version=version("winnow-llm"), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    metrics = Metrics(service)
    for routes in (
        _completions(service, metrics),
        _scoring(service, metrics),
        _models(service),
        _operations(service, metrics),
    ):
        app.include_router(routes)
    app.add_middleware(Front, service=service, keys=keys or ApiKeys(), metrics=metrics)
    app.openapi = _without_422(app)  # type: ignore[method-assign]
    return app


def _without_422(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """FastAPI's description of the routes, less the status it adds by itself: what does not fit gets 400 here."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    return openapi


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    """No such route, or no such method."""
    return errors.response(error, request.scope)


def _completions(service: Service, metrics: Metrics) -> APIRouter:
    routes = route_class(service.settings.max_body_bytes)
    router = APIRouter(route_class=routes, strict_content_type=False, responses=_REFUSED | _BODY | _ANSWER | _STREAM)

    async def answer(body: ChatRequest | TextRequest, request: Request) -> Response:
        noted = record(request.scope)
        todo = await plan(body, service, noted.started)
        name, template = service.settings.model_name, service.template
        chat = isinstance(body, ChatRequest)
        shape = ChatShape(name, template) if chat else TextShape(name, template, todo.echo)
        ticket = service.admission.enter(
            noted.flow, todo.candidates, len(todo.prompt), todo.least, todo.dial.deadline or math.inf
        )
        completion = Completion(todo, shape, ticket, request.scope, service, metrics)
        if not body.stream:
            return await completion.complete(request)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        separate_report = include_usage or body.best_of_n is not None
        return completion.stream(include_usage=include_usage, separate_report=separate_report)

    @router.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a dialog with the best of K candidates."""
        return await answer(body, request)

    @router.post("/v1/completions", response_model=TextCompletion)
    async def completions(body: TextRequest, request: Request) -> Response:
        """Continue a raw prompt with the best of K candidates."""
        return await answer(body, request)

    return router


def _scoring(service: Service, metrics: Metrics) -> APIRouter:
    routes = route_class(service.settings.max_body_bytes)
    router = APIRouter(route_class=routes, strict_content_type=False, responses=_REFUSED | _BODY)

    @router.post("/v1/rewards", response_model=Rewards, responses=_ANSWER)
    async def rewards(body: RewardsRequest, request: Request) -> Response:
        """Score given answers to a dialog."""
        require_model(body.model, service)
        places = max(1, min(len(body.answers), service.settings.max_candidates_in_flight))
        service.admission.require_room(places)
        prompt = await render(body.messages, body.is_safety, service)
        answers = await asyncio.to_thread(_encode, body.answers, prompt, service)
        ticket = service.admission.enter(record(request.scope).flow, places, len(prompt))

        async def score() -> list[Reward]:
            with metrics.candidates_in_flight(places):
                return await _rate(service, prompt, answers, places)

        scored, _ = await unless_gone(request, in_turn(service, ticket, score))
        ratings = [views.rating(index, reward) for index, reward in enumerate(scored)]
        return json_response(Rewards(model=service.settings.model_name, rewards=ratings))

    @router.post("/tokenize", response_model=Tokens)
    async def tokenize(body: TokenizeRequest) -> Response:
        """Count and list the tokens of a text, or of a dialog as the template renders it."""
        if body.model is not None:
            require_model(body.model, service)
        if body.messages is not None:
            ids = list((await render(body.messages, False, service)).token_ids)
        else:
            ids = await encode(body.prompt or "", service, with_bos=body.add_special_tokens)

        def respond() -> Response:
            names = list(map(service.template.token_name, ids)) if body.return_token_strs else None
            return json_response(Tokens(count=len(ids), max_model_len=service.context, tokens=ids, token_strs=names))

        return await asyncio.to_thread(respond)

    @router.post("/detokenize", response_model=Detokenized)
    async def detokenize(body: DetokenizeRequest) -> Response:
        """The text of token ids."""
        if body.model is not None:
            require_model(body.model, service)
        require_tokens(body.tokens, service, "tokens")
        text = await asyncio.to_thread(service.template.tokenizer.decode, body.tokens)
        return json_response(Detokenized(prompt=str(text)))

    return router


def _encode(answers: list[str], prompt: Prompt, service: Service) -> list[list[int]]:
    """The answers' token ids, each of which must fit the context behind `prompt`."""
    encoded = []
    for index, answer in enumerate(answers):
        fewest = service.template.fewest_tokens(answer)
        ids = service.template.encode_answer(answer) if len(prompt) + fewest <= service.context else None
        tokens = f"at least {fewest}" if ids is None else str(len(ids))
        if ids is None or len(prompt) + len(ids) > service.context:
            raise PromptTooLong(
                f"answers[{index}]: {len(prompt)} prompt and {tokens} answer tokens exceed the context of "
                f"{service.context}",
                "answers",
            )
        encoded.append(ids)
    return encoded


async def _rate(service: Service, prompt: Prompt, answers: list[list[int]], places: int) -> list[Reward]:
    """Score the answers, as many at once as there are places for them."""
    free = asyncio.Semaphore(places)

    async def rate(ids: list[int]) -> Reward:
        async with free:
            return await service.pipeline.rate(prompt, ids)

    try:
        async with asyncio.TaskGroup() as group:
            ratings = [group.create_task(rate(ids)) for ids in answers]
    except* WinnowError as failures:
        error = root_cause(failures)
        raise NoScoredCandidate(str(error)) if isinstance(error, CandidateFailed) else error from None
    return [rating.result() for rating in ratings]


def _models(service: Service) -> APIRouter:
    router = APIRouter(route_class=route_class(service.settings.max_body_bytes), responses=_REFUSED)
    card = ModelCard(id=service.settings.model_name, created=int(time.time()), max_model_len=service.context)

    @router.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """List the served models: one."""
        return json_response(ModelList(data=[card]))

    @router.get("/v1/models/{model:path}", response_model=ModelCard, responses={404: _BODY[404]})
    async def model(model: str) -> Response:
        """Describe a served model."""
        require_model(model, service)
        return json_response(card)

    return router


def _operations(service: Service, metrics: Metrics) -> APIRouter:
    router = APIRouter()
    sick: dict[int | str, dict[str, Any]] = {503: {"model": Status, "description": "It is not."}}

    @router.get("/health", response_model=Status, responses=sick)
    async def health() -> Response:
        """Liveness: 200 while the engines run, draining or not; 503 once one has died or hangs."""
        if not service.is_alive:
            return json_response(Status(status="dead"), 503)
        return json_response(Status(status="draining" if service.lifecycle.is_draining else "ok"))

    @router.get("/ready", response_model=Status, responses=sick)
    async def ready() -> Response:
        """Readiness: 200 while new requests are taken; 503 once the server drains, or an engine has died."""
        if service.is_ready:
            return json_response(Status(status="ready"))
        return json_response(Status(status="draining" if service.is_alive else "dead"), 503)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **_REFUSED})
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/version", response_model=Version, responses=_REFUSED)
    async def show_version() -> Response:
        """The server's version."""
        return json_response(Version(version=version("winnow-llm")))

    return router
