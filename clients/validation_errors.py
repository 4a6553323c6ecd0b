"""Translation of pydantic's validation errors into error bodies, for the server and for the clients. Pure.

Pydantic reports a value that fits no member of a union once for each member. The one reported here is the member that
was probably meant: the one whose kind fits, or that fits furthest; if none does, all kinds are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.clients.schema import ErrorDetail

MAX_PATH = 200
"""Characters of a field's path that an error shows; the name may be arbitrary text from a client."""
_KINDS = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_type": "a number",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_type": "a string",
}
"""Pydantic's errors for a value of another kind, each with the kind it should have."""
_ITEMS = {"str": "strings", "int": "integers"}
_LIST = re.compile(r"list\[(?:constrained-)?(\w+)\]")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True, slots=True)
class _Problem:
    """One of pydantic's problems: its place in the body, and the first union on the way with the member's name."""

    kind: str
    text: str
    context: Mapping[str, Any]
    place: tuple[int | str, ...]
    value: Any
    union: tuple[int | str, ...] | None
    member: str

    @classmethod
    def of(cls, error: Mapping[str, Any], skip: int, body: Any) -> _Problem:
        """Tell the parts of the error's location that lead through `body` from the names of union members."""
        location: Sequence[int | str] = error["loc"][skip:]
        place: list[int | str] = []
        union, member, value = None, "", body
        for index, part in enumerate(location):
            is_last = index == len(location) - 1
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(part, int):
                is_item = isinstance(value, Sequence) and not isinstance(value, str | bytes) and part < len(value)
                value = value[part] if is_item else None
            elif not (is_last and error["type"] == "missing"):
                if union is None:
                    union, member = tuple(place), part
                continue
            place.append(part)
        return cls(error["type"], error["msg"], error.get("ctx") or {}, tuple(place), value, union, member)

    @property
    def is_mismatch(self) -> bool:
        """Whether the value is of another kind."""
        return self.kind in _KINDS

    @property
    def fitness(self) -> tuple[bool, int, int]:
        """How far the value fits; larger is further."""
        indices = [part for part in self.place if isinstance(part, int)]
        return (not self.is_mismatch, len(self.place), indices[-1] if indices else -1)

    @property
    def wanted(self) -> str:
        """The kind that the value should have."""
        found = _LIST.fullmatch(self.member) if self.place == self.union else None
        if not found:
            return _KINDS[self.kind]
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", found[1]).lower()
        return f"a list of {_ITEMS.get(found[1], f'{words}s')}"


def describe_invalid(errors: Sequence[Mapping[str, Any]], body: Any, skip: int = 0) -> ErrorDetail:
    """Return the error for pydantic's `errors` about `body`; `skip` parts of each location lead to the body."""
    if errors[0]["type"] == "json_invalid":
        return ErrorDetail(message="the body is not valid JSON", type="invalid_request_error", code="invalid_json")
    first = _Problem.of(errors[0], skip, body)
    if first.union is None:
        problem, kinds = first, [first.wanted] if first.is_mismatch else []
    else:
        problem, kinds = _most_fitting([_Problem.of(error, skip, body) for error in errors], first.union)
    place, code = problem.place, "invalid_request"
    if problem.kind == "literal_error" and place[-1:] == ("type",) and len(place) > 1:
        place, code = place[:-1], "unsupported"
    param = _path(place, problem.context.get("param"))
    if problem.kind in ("extra_forbidden", "unsupported"):
        message, code = f"{param} is not supported", "unsupported"
    elif problem.kind == "invalid_request":
        message = problem.text
    else:
        message = f"{param or 'the body'}: {_reason(problem, kinds, is_type=code == 'unsupported')}"
    return ErrorDetail(message=message, type="invalid_request_error", param=param, code=code)


def _most_fitting(problems: Sequence[_Problem], union: tuple[int | str, ...]) -> tuple[_Problem, list[str]]:
    """Return the problem of the member of `union` that fits best, and the kinds that the value there may have."""
    members: dict[str, _Problem] = {}
    for problem in problems:
        if problem.union == union:
            members.setdefault(problem.member, problem)
    best = max(members.values(), key=lambda problem: problem.fitness)
    alike = [each.wanted for each in members.values() if each.is_mismatch and each.place == best.place]
    return best, list(dict.fromkeys(alike)) if best.is_mismatch else []


def _reason(problem: _Problem, kinds: Sequence[str], *, is_type: bool) -> str:
    if kinds:
        return f"Input should be {', '.join(kinds[:-1])}{' or ' if len(kinds) > 1 else ''}{kinds[-1]}"
    if is_type:
        expected = str(problem.context.get("expected", "")).replace("'", "")
        is_plain = isinstance(problem.value, str) and _PLAIN.fullmatch(problem.value)
        return f"{f'type {problem.value}' if is_plain else 'this type'} is not supported, only {expected}"
    if problem.kind == "too_long" and problem.context.get("max_length") == 1:
        name = next((part for part in reversed(problem.place) if isinstance(part, str)), "item")
        return f"one {name} a request; send a request for each"
    return problem.text


def _path(place: Sequence[int | str], field: str | None) -> str | None:
    """Return ("messages", 0, "content") as `messages[0].content`."""
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return ".".join(filter(None, (path, field)))[:MAX_PATH] or None
