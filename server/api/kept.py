"""`/v1/store…`: what an operator sees of the store, and does with it; every route needs the role `operate`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from winnow.clients.schema import (
    ForgetRequest,
    ForgottenUser,
    StoredExport,
    StoredOrigin,
    StoredSelection,
    StoredSelections,
    StoreStatus,
)
from winnow.models.errors import RequestError, RunError
from winnow.server.api.documentation import BODY, KEPT, LINES, REFUSED
from winnow.server.api.request_body import json_response, route_class
from winnow.server.api.stored import require_recorder
from winnow.server.service import Service
from winnow.server.store.exporting import DOWNLOAD, Download
from winnow.server.store.recorder import Recorder
from winnow.server.store.rows import ExportedFile, Origin, Stored
from winnow.server.store.store import LAST_NUMBER, Store

EXCERPT = 200
"""Characters of a message or an answer in a list."""
EXPORTS = 100
FORGET_SECONDS = 3600.0
"""Forgetting writes the whole file anew."""
DownloadFormat = Literal["sft", "preferences", "reward", "kto", "annotations"]
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Page(BaseModel):
    """The parameters of a list: at most `limit` answers with a number below `before`, perhaps to one `user` alone."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200)
    before: int | None = Field(default=None, ge=1, le=LAST_NUMBER)
    user: str | None = Field(default=None, min_length=1)


class Exported(BaseModel):
    """The parameters of an export."""

    model_config = ConfigDict(extra="forbid")

    origin: int | None = Field(default=None, ge=1, le=LAST_NUMBER)


def routes(service: Service) -> APIRouter:
    """Return the operator's routes of the store."""
    settings = service.settings
    router = APIRouter(route_class=route_class(settings.max_body_bytes), responses=REFUSED | KEPT)

    @router.get("/v1/store", response_model=StoreStatus)
    async def store_status() -> Response:
        """Count what is in the store, and tell how the recording goes."""
        recorder = require_recorder(service)

        def read(store: Store) -> dict[str, Any]:
            counts = asdict(store.counts(int(time.time())))
            return {**counts, "origins": store.origins(), "exports": store.exports(EXPORTS)}

        return json_response(_status(recorder, settings.retention_days, await recorder.call(read)))

    @router.get("/v1/store/selections", response_model=StoredSelections)
    async def stored_selections(page: Annotated[Page, Query()]) -> Response:
        """List recorded answers, the newest first."""
        recorder = require_recorder(service)
        digest = None if page.user is None else recorder.preparer.pseudonyms.of_user(page.user)

        def read(store: Store) -> list[StoredSelection]:
            found = store.newest(page.limit + 1, int(time.time()), page.before, digest)
            annotations = store.annotations.of_selections([one.number for one in found])
            return [listed(one, annotations.get(one.number, 0)) for one in found]

        found = await recorder.call(read)
        shown = found[: page.limit]
        return json_response(
            StoredSelections(data=shown, next=shown[-1].number if len(found) > page.limit else None), headers=PRIVATE
        )

    @router.post("/v1/store/forget", response_model=ForgottenUser, responses=BODY | KEPT)
    async def forget_user(body: ForgetRequest) -> Response:
        """Delete every answer to a user for good, and name the exports that still hold some."""
        recorder = require_recorder(service)
        digest = recorder.preparer.pseudonyms.of_user(body.user)
        done = await recorder.call(lambda store: store.forget(digest, int(time.time())), FORGET_SECONDS)
        exports = list(map(_export, done.exports))
        return json_response(ForgottenUser(selections=done.selections, annotations=done.annotations, exports=exports))

    @router.get("/v1/store/export/{format}", response_class=Response, responses=LINES)
    async def export_store(format: DownloadFormat, asked: Annotated[Exported, Query()]) -> Response:
        """Send the recorded answers as training data, a JSON object a line."""
        recorder = require_recorder(service)
        await recorder.call(Store.last_number)  # what has been answered until now is written by then
        try:
            download = await recorder.aside(lambda store: Download(store, format, asked.origin))
        except RunError as error:
            raise RequestError(str(error), "origin") from None
        try:
            # Before the first line, as with files: whoever is forgotten later has to be told.
            now = int(time.time())
            await recorder.call(lambda store: store.note_export(DOWNLOAD, [format], download.people, now))
        except BaseException:
            download.close()
            raise
        return _Lines(download, f"winnow-{format}.jsonl")

    return router


class _Lines(StreamingResponse):
    """A download, which closes its connection to the store even if the client leaves before the first line."""

    media_type = "application/jsonl"

    def __init__(self, download: Download, name: str) -> None:
        self._download = download
        headers = {**PRIVATE, "Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(self._chunks(), headers=headers)

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in iterate_in_threadpool(self._download.chunks()):
            yield chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._download.close()


def listed(stored: Stored, annotations: int) -> StoredSelection:
    """Return an answer as a list shows it."""
    selection = stored.record.selection
    winner = selection.winner
    asked = [message.content for message in selection.prompt.messages if message.role == "user"]
    return StoredSelection(
        number=stored.number,
        id=stored.id,
        created=stored.created,
        expires=stored.expires,
        model=stored.model,
        origin=stored.origin,
        prompt=asked[-1][:EXCERPT] if asked else "",
        answer=winner.candidate.text[:EXCERPT],
        refused=stored.refusal is not None,
        candidates=selection.candidates,
        combined=winner.reward.combined,
        branch=winner.reward.branch.value,
        annotations=annotations,
    )


def _status(recorder: Recorder, retention_days: float, found: dict[str, Any]) -> StoreStatus:
    return StoreStatus(
        record=recorder.rule,
        store=recorder.kind,
        retention_days=retention_days,
        fault=recorder.fault,
        written=recorder.written,
        waiting=recorder.waiting,
        dropped=recorder.drops,
        **{
            **found,
            "origins": list(map(_origin, found["origins"])),
            "exports": list(map(_export, found["exports"])),
        },
    )


def _origin(origin: Origin) -> StoredOrigin:
    models = {role: str(origin.manifest["models"][role]["id"]) for role in ("policy", "safety", "helpfulness")}
    return StoredOrigin(origin=origin.number, answers=origin.selections, **models)


def _export(export: ExportedFile) -> StoredExport:
    return StoredExport(created=export.created, path=export.path, formats=export.formats.split(","))
