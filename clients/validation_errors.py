"""Translation of pydantic's validation errors into error bodies, for the server and for the clients. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.clients.schema import ErrorDetail
from winnow.clients.schema.compatibility import TOOLS

MAX_PATH = 200
"""Characters of a field's path that an error shows; the name may be arbitrary text from a client."""
MAX_NAMED = 50
"""Fields that one error names."""


def describe_all(problems: Sequence[Mapping[str, Any]], skip: int = 0) -> ErrorDetail:
    """Return the error for pydantic's problems: all unsupported fields at once, or else the first problem.

    The first `skip` parts of each location are not the body's.
    """
    unsupported = [problem for problem in problems if problem["type"] in ("extra_forbidden", "unsupported")]
    if not unsupported:
        return describe_invalid(problems[0], problems[0]["loc"][skip:])
    fields = dict(_field(problem, skip) for problem in unsupported)
    names = [" ".join(filter(None, (path, value))) for path, (_, value) in fields.items()]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    hint = "; there is no tool calling here" if any(name in TOOLS for name, _ in fields.values()) else ""
    verb = "is" if len(names) == 1 else "are"
    return ErrorDetail(
        message=f"{', '.join(names[:MAX_NAMED])}{more} {verb} not supported{hint}",
        type="invalid_request_error",
        param=next(iter(fields)),
        code="unsupported",
    )


def _field(problem: Mapping[str, Any], skip: int) -> tuple[str, tuple[str, str | None]]:
    """Return the path of an unsupported field, its own name, and its value if only that is not supported."""
    context = problem.get("ctx") or {}
    location = (*problem["loc"][skip:], *filter(None, [context.get("param")]))
    return _path(location, None) or "", (str(location[-1]), context.get("value"))


def describe_invalid(problem: Mapping[str, Any], location: Sequence[int | str]) -> ErrorDetail:
    """Return the error for one of pydantic's problems, found at `location` in the body."""
    context = problem.get("ctx") or {}
    if problem["type"] == "json_invalid":
        return ErrorDetail(message="the body is not valid JSON", type="invalid_request_error", code="invalid_json")
    param = _path(location, context.get("param"))
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
