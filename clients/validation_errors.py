"""A body that does not fit its wire type, as the error the wire has for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.clients.schema import ErrorDetail

MOST_SHOWN = 200
"""Characters of a field's path that an error repeats; the field may be one that a client made up."""


def describe_invalid(problem: Mapping[str, Any], location: Sequence[int | str]) -> ErrorDetail:
    """The error for one of pydantic's problems, found at `location` in the body."""
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
    """`("messages", 0, "content", "str")` as `messages[0].content`; names of union arms are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part in ("str", "constrained-str") or "[" in part):
            path += f".{part}" if path else part
    return ".".join(filter(None, (path, field)))[:MOST_SHOWN] or None
