"""Translation of pydantic's validation errors into error bodies, for the server and for the clients. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.clients.schema import ErrorDetail

MAX_PATH = 200
"""Characters of a field's path that an error shows; the name may be arbitrary text from a client."""


def describe_invalid(problem: Mapping[str, Any], location: Sequence[int | str]) -> ErrorDetail:
    """Return the error for one of pydantic's problems, found at `location` in the body."""
    context = problem.get("ctx") or {}
    if problem["type"] == "json_invalid":
        return ErrorDetail(message="the body is not valid JSON", type="invalid_request_error", code="invalid_json")
    param = _path(location, context.get("param"))
    if problem["type"] in ("extra_forbidden", "unsupported"):
        return ErrorDetail(
            message=f"{param} is not supported", type="invalid_request_error", param=param, code="unsupported"
        )
    message = problem["msg"] if problem["type"] == "invalid_request" else f"{param or 'the body'}: {problem['msg']}"
    return ErrorDetail(message=message, type="invalid_request_error", param=param, code="invalid_request")


def _path(location: Sequence[int | str], field: str | None) -> str | None:
    """Return ("messages", 0, "content", "str") as `messages[0].content`, without the names of union members."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part in ("str", "constrained-str") or "[" in part):
            path += f".{part}" if path else part
    return ".".join(filter(None, (path, field)))[:MAX_PATH] or None
