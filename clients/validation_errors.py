"""Translation of pydantic's validation errors into error bodies, for the server and for the clients. Pure.

Pydantic reports a value that fits no member of a union once for each member. The one reported here is the member that
was probably meant: the one whose kind fits, or that fits furthest; if none does, all kinds are named. Fields that are
not supported are named all at once, and before anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from winnow.clients.schema import ChatMessage, ErrorDetail
from winnow.clients.schema.compatibility import TOOLS
from winnow.clients.schema.requests import MAX_MESSAGES

MAX_PATH = 200
"""Characters of a field's path that an error shows; the name may be arbitrary text from a client."""
MAX_NAMED = 50
"""Fields that one error names."""
MAX_READ = 1000
"""Problems that are read; a hostile body can have ten thousand."""
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
            if place == ["prompt"] and isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
                place.append(0)  # the only prompt of a list is validated in its place
                value = value[0]
        return cls(error["type"], error["msg"], error.get("ctx") or {}, tuple(place), value, union, member)

    @property
    def is_unsupported(self) -> bool:
        """Whether the field is unknown, or known and not supported."""
        return self.kind in ("extra_forbidden", "unsupported")

    @property
    def is_type(self) -> bool:
        """Whether the value is the type of an object, and not a supported one."""
        return self.kind == "literal_error" and self.place[-1:] == ("type",) and len(self.place) > 1

    @property
    def is_refused(self) -> bool:
        """Whether the field, or the type of an object, is not supported."""
        return self.is_unsupported or self.is_type

    @property
    def param(self) -> str | None:
        """The path of the field at fault."""
        return _path(self.place[:-1] if self.is_type else self.place, self.context.get("param"))

    @property
    def shown_type(self) -> str:
        """The type at fault, unless it is an odd text."""
        is_plain = isinstance(self.value, str) and _PLAIN.fullmatch(self.value)
        return f"type {self.value}" if is_plain else "this type"

    @property
    def is_mismatch(self) -> bool:
        """Whether the value is of another kind; also beside a literal that a union allows, unless both are texts."""
        is_text = isinstance(self.value, str) and str(self.context.get("expected")).startswith("'")
        is_literal = self.kind == "literal_error" and self.place == self.union and not is_text
        return self.kind in _KINDS or is_literal

    @property
    def fitness(self) -> tuple[bool, int, int]:
        """A rank of how far the value fits; larger is further."""
        indices = [part for part in self.place if isinstance(part, int)]
        return (not self.is_mismatch, len(self.place), indices[-1] if indices else -1)

    @property
    def wanted(self) -> str:
        """The kind that the value should have."""
        if self.kind == "literal_error":
            return str(self.context.get("expected")).lower()  # as JSON has it: false
        found = _LIST.fullmatch(self.member) if self.place == self.union else None
        if not found:
            return _KINDS[self.kind]
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", found[1]).lower()
        return f"a list of {_ITEMS.get(found[1], f'{words}s')}"


def describe_invalid(errors: Sequence[Mapping[str, Any]], body: Any, skip: int = 0) -> ErrorDetail:
    """Return the error for pydantic's `errors` about `body`; `skip` parts of each location lead to the body."""
    if errors[0]["type"] == "json_invalid":
        return ErrorDetail(message="the body is not valid JSON", type="invalid_request_error", code="invalid_json")
    errors = errors[:MAX_READ]
    later = islice(_errors_of_later_messages(errors, body, skip), MAX_NAMED)
    if unsupported := _unsupported([*errors, *later], body, skip):
        return _refusal(unsupported)
    first = _Problem.of(errors[0], skip, body)
    if first.union is None:
        problem, kinds = first, [first.wanted] if first.is_mismatch else []
    else:
        problem, kinds = _most_fitting([_Problem.of(error, skip, body) for error in errors], first.union)
    message = problem.text
    if kinds:
        message = f"Input should be {', '.join(kinds[:-1])}{' or ' if len(kinds) > 1 else ''}{kinds[-1]}"
    if problem.kind == "missing" and problem.param is None:
        message = f"Input should be {_KINDS['model_type']}"
    if problem.kind != "invalid_request":
        message = f"{problem.param or 'the body'}: {message}"
    return ErrorDetail(message=message, type="invalid_request_error", param=problem.param, code="invalid_request")


def _errors_of_later_messages(errors: Sequence[Mapping[str, Any]], body: Any, skip: int) -> Iterator[Mapping[str, Any]]:
    """Yield the errors of the messages behind the first invalid one, at which validation has stopped."""
    places = (error["loc"][skip : skip + 2] for error in errors)
    first = next((place[1] for place in places if len(place) == 2 and place[0] == "messages"), None)
    messages = body.get("messages") if isinstance(body, Mapping) else None
    if not isinstance(first, int) or not isinstance(messages, list):
        return
    for index, message in enumerate(messages[first + 1 : MAX_MESSAGES], start=first + 1):
        try:
            ChatMessage.model_validate(message)
        except ValidationError as invalid:
            for error in invalid.errors(include_url=False, include_input=False):
                yield {**error, "loc": (*errors[0]["loc"][:skip], "messages", index, *error["loc"])}


def _unsupported(errors: Sequence[Mapping[str, Any]], body: Any, skip: int) -> list[_Problem]:
    """Return all unsupported fields and types; of a union only those that are what is wrong with the member meant."""
    likely = [error for error in errors if error["type"] in ("extra_forbidden", "unsupported", "literal_error")]
    found = [problem for error in likely if (problem := _Problem.of(error, skip, body)).is_refused]
    typed = {problem.place[:-1] for problem in found if problem.is_type}
    found = [problem for problem in found if problem.is_type or problem.place[:-1] not in typed]
    if all(problem.union is None for problem in found):
        return found
    problems = [_Problem.of(error, skip, body) for error in errors]
    meant = {union: _most_fitting(problems, union)[0] for union in {problem.union for problem in found} if union}
    return [problem for problem in found if not problem.union or problem.member == meant[problem.union].member]


def _refusal(problems: Sequence[_Problem]) -> ErrorDetail:
    """Return the error that names every unsupported field."""
    names = list(dict.fromkeys(map(_name, problems)))
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    message = f"{', '.join(names[:MAX_NAMED])}{more} {'is' if len(names) == 1 else 'are'} not supported"
    if len(names) == 1 and problems[0].is_type:
        expected = str(problems[0].context.get("expected", "")).replace("'", "")
        message = f"{problems[0].param}: {problems[0].shown_type} is not supported, only {expected}"
    if any((each.context.get("param") or each.place[-1]) in TOOLS for each in problems):
        message += "; there is no tool calling here"
    return ErrorDetail(message=message, type="invalid_request_error", param=problems[0].param, code="unsupported")


def _name(problem: _Problem) -> str:
    """Return an unsupported field, with its type or value where only that is not supported."""
    value = problem.shown_type if problem.is_type else problem.context.get("value")
    return f"{problem.param} ({value})" if value else str(problem.param)


def _most_fitting(problems: Sequence[_Problem], union: tuple[int | str, ...]) -> tuple[_Problem, list[str]]:
    """Return the problem of the member of `union` that fits best, and the kinds that the value there may have."""
    members: dict[str, _Problem] = {}
    for problem in problems:
        if problem.union == union:
            members.setdefault(problem.member, problem)
    best = max(members.values(), key=lambda problem: problem.fitness)
    alike = [each.wanted for each in members.values() if each.is_mismatch and each.place == best.place]
    return best, list(dict.fromkeys(alike)) if best.is_mismatch else []


def _path(place: Sequence[int | str], field: str | None) -> str | None:
    """Return ("messages", 0, "content") as `messages[0].content`."""
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return ".".join(filter(None, (path, field)))[:MAX_PATH] or None
