"""Request bodies: bounded JSON on each route that has one; exceptions are answered through the table in `errors`."""

import functools
import re
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from winnow.models.errors import RequestError, WinnowError
from winnow.server.api import errors

MAX_ELEMENTS = 100_000


class _JsonRequest(Request):
    """A request with a bounded body, parsed by orjson, which limits nesting and refuses NaN and lone surrogates."""

    max_bytes: int

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._check_headers()
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > self.max_bytes:
                    raise self._too_large()
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        body = await self.body()
        # Parsing blocks the event loop, for a time that grows with the number of elements rather than bytes.
        elements = sum(map(body.count, (b",", b"[", b"{")))
        if elements > MAX_ELEMENTS:
            raise RequestError(f"the body has more than {MAX_ELEMENTS} elements (commas and brackets are counted)")
        return orjson.loads(body)

    def _check_headers(self) -> None:
        """Refuse a body that is too large, compressed or not JSON before reading it."""
        length = self.headers.get("content-length", "0")
        if len(length) > 18 or int(length) > self.max_bytes:
            raise self._too_large()
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "compressed bodies are not read; send the body without Content-Encoding")
        # A web page can send other types, and none, to any server without asking its browser's leave.
        kinds = [kind.partition(";")[0].strip().lower() for kind in self.headers.getlist("content-type")]
        if len(kinds) != 1 or not re.fullmatch(r"application/([^/]+\+)?json", kinds[0]):
            raise HTTPException(415, "the body must be JSON; send one header Content-Type: application/json")

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body exceeds this server's limit of {self.max_bytes} bytes")


def route_class(max_bytes: int) -> type[APIRoute]:
    """Return a route class with bodies of at most `max_bytes` and with errors from the table."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            @functools.wraps(handle)
            async def handler(request: Request) -> Response:
                bounded = _JsonRequest(request.scope, request.receive)
                bounded.max_bytes = max_bytes
                try:
                    return await handle(bounded)
                except Exception as error:
                    # The boundary: every failure gets an answer, and the server goes on. FastAPI wraps exceptions
                    # raised while it reads a body.
                    cause = error.__cause__
                    unwrapped = cause if isinstance(cause, WinnowError | ClientDisconnect) else error
                    return errors.response(unwrapped, request.scope)

            return handler

    return Route


def json_response(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `body` as a JSON response."""
    return Response(body.model_dump_json(), status, headers=headers, media_type="application/json")
