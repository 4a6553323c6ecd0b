"""The routes for operators and for discovery: models, health, readiness, metrics, version."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from winnow.clients.schema import (
    Adaptive,
    CalibratedOn,
    CallerInfo,
    Degraded,
    Gains,
    Gpu,
    ModelCard,
    ModelList,
    Recording,
    ServedBy,
    Status,
    Unavailable,
    Version,
)
from winnow.models.engines.base import ServedPolicy
from winnow.models.engines.environment import engine_version
from winnow.models.engines.memory import GIB
from winnow.models.engines.model_server import RemoteEngine
from winnow.models.engines.scorers import Scorer
from winnow.server.api.auth import ROLES, caller
from winnow.server.api.documentation import BODY, REFUSED, Documented
from winnow.server.api.metrics import Metrics
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.request_parsing import require_model
from winnow.server.service import Service


def model_routes(service: Service) -> APIRouter:
    """Return the routes that list the served model."""
    router = APIRouter(route_class=route_class(service.settings.max_body_bytes), responses=REFUSED)
    card = ModelCard(
        id=service.settings.model_name,
        created=int(time.time()),
        max_model_len=service.context,
        chat_template=service.template.name,
    )

    @router.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """List the served models: one."""
        return json_response(ModelList(data=[card]))

    @router.get("/v1/models/{model:path}", response_model=ModelCard, responses={404: BODY[404]})
    async def model(model: str) -> Response:
        """Describe a served model."""
        if not model.strip("/"):
            raise HTTPException(404, "there is no such path here; did you mean /v1/models?")
        require_model(model, service)
        return json_response(card)

    return router


def caller_routes() -> APIRouter:
    """Return the route that tells callers what they may do."""
    router = APIRouter(responses=REFUSED)

    @router.get("/v1/caller", response_model=CallerInfo)
    async def who(request: Request) -> Response:
        """Tell the name and the roles of the request's API key; without keys everyone has all roles."""
        found = caller(request.scope)
        return json_response(CallerInfo(name=found.name, roles=[role for role in ROLES if role in found.roles]))

    return router


def _served_by(scorer: Scorer, checkpoint: str) -> ServedBy:
    """Return what serves a reward model; of a folder here its name alone."""
    card = None if scorer.is_derived else scorer.card.name
    if remote := scorer.remote:
        return ServedBy(kind=scorer.kind, model=remote.name, address=remote.link.shown, card=card)
    return ServedBy(kind=scorer.kind, model=Path(checkpoint).name, card=card)


def _policy(policy: ServedPolicy) -> ServedBy | None:
    """Return what serves a policy on other servers; None for one of this machine."""
    if not isinstance(policy, RemoteEngine):
        return None
    link = policy.remote.link
    return ServedBy(kind=link.address.kind, model=policy.remote.name, address=link.shown)


def _recording(service: Service) -> Recording | None:
    """Return how the recording of answers goes; None without a store."""
    if not (recorder := service.recorder):
        return None
    return Recording(
        record=recorder.rule,
        store=recorder.kind,
        retention_days=service.settings.retention_days,
        fault=recorder.fault,
        written=recorder.written,
        dropped=recorder.drops,
    )


Exposition = Callable[[], Awaitable[bytes]]
"""Returns a page of metrics, in Prometheus' text format."""


def routes(service: Service, metrics: Metrics, exposition: Exposition | None = None) -> APIRouter:
    """Return the probes, the metrics (or the `exposition` instead) and the version."""
    router = APIRouter()
    unavailable: Documented = {503: {"model": Status, "description": "The server is not alive, or not ready."}}

    @router.get("/health", response_model=Status, responses=unavailable)
    async def health() -> Response:
        """Liveness: 200 while the engines run, draining or not; 503 once one has died or hangs."""
        if not service.is_alive:
            return json_response(Status(status="dead"), 503)
        return json_response(Status(status="draining" if service.lifecycle.is_draining else "ok"))

    @router.get("/ready", response_model=Status, responses=unavailable)
    async def ready() -> Response:
        """Readiness: 200 while new requests are taken; 503 while a remote model is down, or as the server ends."""
        if service.is_ready:
            degraded = service.degraded
            return json_response(Degraded(status="ready", degraded=degraded) if degraded else Status(status="ready"))
        if service.is_alive and not service.lifecycle.is_draining:
            return json_response(Unavailable(status="unavailable", unavailable=service.outages), 503)
        return json_response(Status(status="draining" if service.is_alive else "dead"), 503)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **REFUSED})
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(await exposition() if exposition else metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/version", response_model=Version, responses=REFUSED)
    async def show_version() -> Response:
        """The versions of the server and its engine, the GPU, the combiner, and which reward models are calibrated."""
        card = service.card
        adaptive, gains = service.defaults.adaptive, service.gains
        gpu = Gpu(name=card.name, memory_gib=round(card.total / GIB, 1), mps=card.mps) if card else None
        return json_response(
            Version(
                version=version("winnow-llm"),
                engine=engine_version(),
                gpu=gpu,
                combiner=service.combiner,
                empty_last=service.settings.empty_last,
                calibrated=service.calibrated,
                calibration={
                    name: CalibratedOn(**record.model_dump(mode="json")) if record else None
                    for name, record in service.calibration_records.items()
                },
                reward_models={
                    name: _served_by(scoring.scorer, service.settings.checkpoints[name])
                    for name, scoring in service.scorings.items()
                },
                policy=_policy(service.policy),
                adaptive=Adaptive(**asdict(adaptive)) if adaptive else None,
                gains=Gains(digest=gains.digest, prompts=gains.table.prompts, date=gains.table.date) if gains else None,
                recording=_recording(service),
            )
        )

    return router
