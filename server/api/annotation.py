"""The routes of preference collection: guidelines, batches, and the work of annotators."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response

from winnow.clients import schema
from winnow.clients.schema.annotation import MAX_COMMENT
from winnow.server.annotation import accuracy, batches, guidelines, looking, making
from winnow.server.annotation.work import Desk
from winnow.server.api.access import needs
from winnow.server.api.auth import caller
from winnow.server.api.documentation import BODY, KEPT, REFUSED, Documented
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.stored import require_recorder
from winnow.server.service import Service
from winnow.server.store.recorder import Recorder
from winnow.server.store.store import Store

T = TypeVar("T")
HELD: Documented = {409: {"model": schema.ErrorBody, "description": "The pair is not held any more."}}
OPERATE = needs("operate")
LOOK = needs("annotate", "operate")


def routes(service: Service) -> APIRouter:
    """Return the routes; those that do not say otherwise are for annotators."""
    router = APIRouter(route_class=route_class(service.settings.max_body_bytes), responses=REFUSED | BODY | KEPT)
    _add_guidelines(router, service)
    _add_batches(router, service)
    _add_work(router, service)
    _add_reports(router, service)
    return router


async def _ask(service: Service, function: Callable[[Store], T]) -> T:
    return await require_recorder(service).call(function)


def _now() -> int:
    return int(time.time())


async def _aside(recorder: Recorder, function: Callable[[Store], T]) -> T:
    """Ask over a connection of its own: what reads every answer or annotation takes longer than the writer may wait."""

    def ask(store: Store) -> T:
        try:
            return function(store)
        finally:
            store.close()

    return await recorder.aside(ask)


def _add_guidelines(router: APIRouter, service: Service) -> None:
    @router.post("/v1/annotation/guidelines", response_model=schema.Guidelines, openapi_extra=OPERATE)
    async def new_guidelines(body: schema.NewGuidelines) -> Response:
        """Set the guidelines for batches from now on; the text of the newest version makes no new one."""
        row = await _ask(service, lambda store: guidelines.add(store, body.text, _now()))
        return json_response(schema.Guidelines(version=row.version, text=row.text, created=row.created))

    @router.get("/v1/annotation/guidelines", response_model=schema.Guidelines, openapi_extra=LOOK)
    async def read_guidelines(version: Annotated[int | None, Query(ge=1, le=2**31)] = None) -> Response:
        """Return the newest guidelines, or a version."""
        row = await _ask(service, lambda store: guidelines.get(store, version, _now()))
        return json_response(schema.Guidelines(version=row.version, text=row.text, created=row.created))


def _add_batches(router: APIRouter, service: Service) -> None:
    @router.post("/v1/annotation/batches", response_model=schema.Batch, openapi_extra=OPERATE)
    async def new_batch(body: schema.NewBatch) -> Response:
        """Make a batch of pairs of recorded answers, by a policy or as given."""
        recorder = require_recorder(service)
        await recorder.call(Store.last_number)  # what has been answered until now is written by then
        return json_response(await _aside(recorder, lambda store: making.make(store, body, _now())))

    @router.get("/v1/annotation/batches", response_model=schema.BatchList, openapi_extra=LOOK)
    async def list_batches(request: Request) -> Response:
        """List all batches, the newest first."""
        wholly = "operate" in caller(request.scope).roles
        return json_response(await _ask(service, lambda store: batches.listed(store, _now(), wholly=wholly)))

    @router.get("/v1/annotation/batches/{id}", response_model=schema.Batch, openapi_extra=OPERATE)
    async def one_batch(id: str) -> Response:
        """Return a batch."""
        return json_response(await _ask(service, lambda store: batches.one(store, id, _now())))

    @router.post("/v1/annotation/batches/{id}/close", response_model=schema.Batch, openapi_extra=OPERATE)
    async def close_batch(id: str) -> Response:
        """Close a batch: its pairs are given out no more."""
        return json_response(await _ask(service, lambda store: batches.close(store, id, _now())))

    @router.post("/v1/annotation/pairs", response_model=schema.SentPair, openapi_extra=OPERATE)
    async def send_pair(body: schema.GivenPair) -> Response:
        """Send two candidates of a recorded completion to annotation."""
        return json_response(await _ask(service, lambda store: making.send(store, body, _now())))


def _add_work(router: APIRouter, service: Service) -> None:
    async def at_desk(request: Request, function: Callable[[Desk], T]) -> T:
        found, name = require_recorder(service), caller(request.scope).name
        return await found.call(lambda store: function(Desk(store, found.preparer.pseudonyms, name, _now())))

    @router.post("/v1/annotation/lease", response_model=schema.Lease)
    async def lease(body: schema.LeaseRequest, request: Request) -> Response:
        """Return the pair that the caller holds, or the next one."""
        return json_response(await at_desk(request, lambda desk: desk.lease(body.batch)))

    @router.post("/v1/annotation/annotations", response_model=schema.Accepted, responses=HELD)
    async def annotate(body: schema.NewAnnotation, request: Request) -> Response:
        """Keep a choice; it is on disk when this answers, and sending it again changes nothing."""
        # What annotators write is redacted as what users do: they may quote them.
        comment = require_recorder(service).preparer.redactor.text(body.comment)[:MAX_COMMENT]
        given = body.model_copy(update={"comment": comment})
        return json_response(await at_desk(request, lambda desk: desk.annotate(given)))

    @router.post("/v1/annotation/skip", response_model=schema.Remaining, responses=HELD)
    async def skip(body: schema.SkipRequest, request: Request) -> Response:
        """Give a pair back, for others."""
        reason = require_recorder(service).preparer.redactor.text(body.reason)
        return json_response(await at_desk(request, lambda desk: desk.skip(body.lease, reason)))

    @router.post("/v1/annotation/undo", response_model=schema.Lease)
    async def undo(body: schema.UndoRequest, request: Request) -> Response:
        """Return the caller's last annotation to be revised."""
        return json_response(await at_desk(request, Desk.undo))

    @router.get("/v1/annotation/mine", response_model=schema.Mine)
    async def mine(request: Request) -> Response:
        """Return the caller's own progress."""
        return json_response(await at_desk(request, Desk.mine))


def _add_reports(router: APIRouter, service: Service) -> None:
    @router.get("/v1/annotation/agreement", response_model=schema.AgreementReport, openapi_extra=OPERATE)
    async def agreement(batch: Annotated[str | None, Query(max_length=100)] = None) -> Response:
        """Tell how far annotators agree, and whether they favour a side."""
        recorder = require_recorder(service)
        return json_response(await _aside(recorder, lambda store: looking.report(store, batch)))

    @router.get("/v1/annotation/reward-models", response_model=schema.RewardModelsReport, openapi_extra=OPERATE)
    async def reward_models(batch: Annotated[str | None, Query(max_length=100)] = None) -> Response:
        """Compare every recorded reward model with people's choices."""
        recorder = require_recorder(service)
        return json_response(await _aside(recorder, lambda store: accuracy.report(store, batch)))
