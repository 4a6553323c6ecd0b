"""The one table that turns exceptions into HTTP answers; every error body is `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from winnow.clients.wire import ErrorBody, ErrorDetail
from winnow.models.errors import EngineDead, NoScoredCandidate, RequestError, WinnowError

logger = logging.getLogger(__name__)


class UnknownModel(RequestError):
    """The request names a model that is not served."""

    code = "model_not_found"


class ClientGone(WinnowError):
    """The client closed the connection before its answer was ready; nobody is left to tell."""


def describe(error: Exception) -> tuple[int, ErrorDetail]:
    """The status and the body's detail for `error`."""
    match error:
        case UnknownModel():
            return 404, ErrorDetail(message=str(error), type="invalid_request_error", param="model", code=error.code)
        case RequestError():
            return 400, ErrorDetail(
                message=str(error), type="invalid_request_error", param=error.param, code=error.code
            )
        case ClientGone():
            return 499, ErrorDetail(message="the client closed the connection", type="client_closed")
        case EngineDead():
            return 503, ErrorDetail(
                message=f"{error}; the server is shutting down", type="server_error", code="engine_dead"
            )
        case NoScoredCandidate():
            return 500, ErrorDetail(message=str(error), type="server_error", code="no_scored_candidate")
        case RequestValidationError():
            return 400, _validation(error.errors())
        case HTTPException():
            return error.status_code, ErrorDetail(message=str(error.detail), type="invalid_request_error")
        case _:
            return 500, ErrorDetail(message="internal error", type="server_error", code="internal_error")


def _validation(problems: Sequence[Any]) -> ErrorDetail:
    """The first problem of a body that does not fit, with the path of the field at fault."""
    problem = problems[0]
    context = problem.get("ctx") or {}
    if problem["type"] == "json_invalid":
        return ErrorDetail(message="the body is not valid JSON", type="invalid_request_error", code="invalid_json")
    param = _path(problem["loc"][1:], context.get("param"))
    if problem["type"] in ("extra_forbidden", "unsupported"):
        return ErrorDetail(
            message=f"{param} is not supported", type="invalid_request_error", param=param, code="unsupported"
        )
    message = problem["msg"] if problem["type"] == "invalid_request" else f"{param or 'the body'}: {problem['msg']}"
    return ErrorDetail(message=message, type="invalid_request_error", param=param, code="invalid_request")


def _path(location: Sequence[int | str], field: str | None) -> str | None:
    """`("messages", 0, "content", "str")` as `messages[0].content`; names of union arms are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part in ("str", "constrained-str") or "[" in part):
            path += f".{part}" if path else part
    return ".".join(filter(None, (path, field))) or None


def explain(error: Exception) -> tuple[int, ErrorDetail]:
    """As `describe`; what nobody foresaw is logged, by its kind alone: its text may hold what a user wrote."""
    status, detail = describe(error)
    if detail.code == "internal_error":
        logger.error("a request failed unexpectedly: %s", type(error).__name__)
    return status, detail


def response(error: Exception) -> Response:
    """The HTTP answer for `error`. Retrying cannot help a deterministic failure, and says so."""
    status, detail = explain(error)
    headers = {"x-should-retry": "false"} if status < 500 or isinstance(error, NoScoredCandidate) else {}
    if isinstance(error, HTTPException) and error.headers:
        headers |= error.headers
    body = ErrorBody(error=detail).model_dump_json()
    return Response(body, status, headers=headers, media_type="application/json")
