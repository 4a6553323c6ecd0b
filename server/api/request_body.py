"""What every route with a body shares: it reads bounded JSON, and answers every exception through the one table."""

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

MOST_ELEMENTS = 100_000


class _JsonRequest(Request):
    """A request whose body is bounded, and parsed by orjson: that bounds nesting and refuses NaN and lone surrogates."""

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
        # What parsing costs goes with the elements, not with the bytes, and nobody else is served meanwhile.
        elements = sum(map(body.count, (b",", b"[", b"{")))
        if elements > MOST_ELEMENTS:
            raise RequestError(f"the body has more than {MOST_ELEMENTS} elements (commas and brackets are counted)")
        return orjson.loads(body)

    def _check_headers(self) -> None:
        """Refuse what cannot be read before reading it."""
        length = self.headers.get("content-length", "0")
        if len(length) > 18 or int(length) > self.max_bytes:
            raise self._too_large()
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "compressed bodies are not read; send the body without Content-Encoding")
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if not re.fullmatch(r"application/([^/]+\+)?json", kind):
            raise HTTPException(415, "the body must be JSON; send Content-Type: application/json")

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body exceeds this server's limit of {self.max_bytes} bytes")


def route_class(max_bytes: int) -> type[APIRoute]:
    """Routes whose bodies hold at most `max_bytes`, and that answer with our errors only."""

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
                    # The boundary: whatever happened, the client gets an answer and the server goes on. FastAPI wraps what the
                    # reading of a body raises.
                    cause = error.__cause__
                    told = cause if isinstance(cause, WinnowError | ClientDisconnect) else error
                    return errors.response(told, request.scope)

            return handler

    return Route


def json_response(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A wire body as a response."""
    return Response(body.model_dump_json(), status, headers=headers, media_type="application/json")
