"""The routes of the page: `/` and its files."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from winnow.server.web.files import HEADERS, PREFIX, PageFile


def routes(files: Mapping[str, PageFile]) -> APIRouter:
    """Return the routes that serve `files`; they are no part of the API, nor of its document."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        """Send the page."""
        return _sent(files["/"], request)

    @router.get(PREFIX + "{name}")
    async def file(name: str, request: Request) -> Response:
        """Send one of the page's files."""
        found = files.get(PREFIX + name)
        if not found:
            raise HTTPException(404)
        return _sent(found, request)

    return router


def _sent(file: PageFile, request: Request) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if file.is_known(request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)
