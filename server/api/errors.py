"""The table from exceptions to HTTP answers; every error body is `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from winnow.clients.schema import ErrorBody, ErrorDetail
from winnow.clients.validation_errors import describe_invalid
from winnow.models.errors import (
    ClientGone,
    DeadlineExceeded,
    EngineDead,
    ForeignOrigin,
    HeadTooLarge,
    InvalidKey,
    LeaseExpired,
    ModelUnavailable,
    NoScoredCandidate,
    NotStored,
    Overloaded,
    RequestError,
    RoleMissing,
    ShuttingDown,
    StoreError,
    TooManyHeaders,
    UnknownModel,
    UntrustedHost,
)
from winnow.server.api.logging import brief, request_log

logger = logging.getLogger(__name__)


def describe(error: Exception) -> tuple[int, ErrorDetail]:
    """Return the HTTP status and the error body's detail for `error`."""
    match error:
        case UnknownModel():
            return 404, ErrorDetail(message=str(error), type="invalid_request_error", param="model", code=error.code)
        case NotStored():
            return 404, ErrorDetail(
                message=str(error), type="invalid_request_error", param=error.param, code=error.code
            )
        case LeaseExpired():
            return 409, ErrorDetail(message=str(error), type="conflict_error", param=error.param, code=error.code)
        case RequestError():
            return 400, ErrorDetail(
                message=str(error), type="invalid_request_error", param=error.param, code=error.code
            )
        case ClientGone() | ClientDisconnect():
            return 499, ErrorDetail(message="the client closed the connection", type="client_closed")
        case InvalidKey():
            return 401, ErrorDetail(message=str(error), type="authentication_error", code="invalid_api_key")
        case RoleMissing():
            return 403, ErrorDetail(message=str(error), type="permission_error", code="role_missing")
        case TooManyHeaders():
            return 431, ErrorDetail(message=str(error), type="invalid_request_error", code="too_many_headers")
        case HeadTooLarge():
            return 431, ErrorDetail(message=str(error), type="invalid_request_error", code="headers_too_large")
        case UntrustedHost():
            return 421, ErrorDetail(message=str(error), type="invalid_request_error", code="untrusted_host")
        case ForeignOrigin():
            return 403, ErrorDetail(message=str(error), type="invalid_request_error", code="foreign_origin")
        case Overloaded():
            return 429, ErrorDetail(message=str(error), type="rate_limit_error", code="overloaded")
        case EngineDead():
            return 503, ErrorDetail(message=f"{error}; the server is stopping", type="server_error", code="engine_dead")
        case ModelUnavailable():
            return 503, ErrorDetail(message=str(error), type="server_error", code=error.code)
        case StoreError():
            message = f"the store cannot be used for now: {error.reason}"
            return 503, ErrorDetail(message=message, type="server_error", code="store_unavailable")
        case ShuttingDown():
            return 503, ErrorDetail(message=str(error), type="server_error", code="shutting_down")
        case DeadlineExceeded():
            return 504, ErrorDetail(message=str(error), type="server_error", code="deadline_exceeded")
        case NoScoredCandidate():
            return 500, ErrorDetail(message=str(error), type="server_error", code="no_scored_candidate")
        case RequestValidationError():
            return 400, _of_parameter(error) or describe_invalid(error.errors(), error.body, skip=1)
        case HTTPException():
            return error.status_code, ErrorDetail(message=str(error.detail), type="invalid_request_error")
        case _:
            return 500, ErrorDetail(message="internal error", type="server_error", code="internal_error")


def _of_parameter(error: RequestValidationError) -> ErrorDetail | None:
    """Return what is wrong with a parameter of the path or the query; None if the body is at fault."""
    first = error.errors()[0]
    if first["loc"][0] not in ("path", "query"):
        return None
    if first["type"] == "extra_forbidden":
        text, name = "there is no such parameter", None
    else:
        text, name = first["msg"], str(first["loc"][-1])
    message = f"{name}: {text}" if name else text
    return ErrorDetail(message=message, type="invalid_request_error", param=name, code="invalid_request")


def explain(error: Exception, scope: Scope) -> tuple[int, ErrorDetail]:
    """Return `describe(error)`; note the code in the request's log, and log an unexpected exception."""
    status, detail = describe(error)
    request_log(scope).fields["error"] = detail.code or str(status)
    if detail.code == "internal_error":
        logger.error("a request failed unexpectedly: %s", brief(error))
    return status, detail


def response(error: Exception, scope: Scope) -> Response:
    """Return the HTTP answer for `error`. If a retry cannot succeed, `x-should-retry` says so."""
    status, detail = explain(error, scope)
    return Response(
        ErrorBody(error=detail).model_dump_json(),
        status,
        headers=_headers(error, status),
        media_type="application/json",
    )


def _headers(error: Exception, status: int) -> dict[str, str]:
    match error:
        case Overloaded() | ModelUnavailable():
            return {"Retry-After": str(error.retry_after)}
        case InvalidKey():
            return {"WWW-Authenticate": "Bearer", "x-should-retry": "false"}
        case HTTPException() if error.headers:
            return {**error.headers, "x-should-retry": "false"}
    is_final = status < 500 or isinstance(error, NoScoredCandidate | DeadlineExceeded)
    return {"x-should-retry": "false"} if is_final else {}
