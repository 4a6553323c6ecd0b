"""A column of an export: its name, its kind, what it says, and how it is had. Files, schemas and the card all come from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import orjson

from winnow.models.types import Message
from winnow.server.distill.export.choosing import Pick

T = TypeVar("T")
Kind = Literal["int64", "float64", "bool", "string", "messages", "weighted_messages"]
FIELDS: dict[str, dict[str, str]] = {
    "messages": {"role": "string", "content": "string"},
    "weighted_messages": {"role": "string", "content": "string", "weight": "int64"},
}
"""The kinds that are lists of objects, and their objects' fields; all other kinds are plain values."""

_LINE_ENDS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of rows that are made of `T`. `about` is one line of Markdown; it says where null is possible."""

    name: str
    kind: Kind
    about: str
    value: Callable[[T], Any]


def row(columns: Sequence[Column[T]], subject: T) -> dict[str, Any]:
    """The row that `subject` makes."""
    return {column.name: column.value(subject) for column in columns}


def json_line(body: Any) -> bytes:
    """One line of JSON with its end. No reader finds a line's end inside: U+0085, U+2028 and U+2029 are escaped."""
    line = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return _LINE_ENDS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


def dialog(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as JSON."""
    return [{"role": message.role, "content": message.content} for message in messages]


def said(text: str) -> list[dict[str, Any]]:
    """An answer as JSON: the one message that it is."""
    return [{"role": "assistant", "content": text}]


def where(pick: Pick) -> int:
    """The prompt's line in its answer's own run."""
    return pick.answer.record.line


PROMPT: tuple[Column[Pick], ...] = (
    Column("line", "int64", "the prompt's line in the input, from 1", lambda pick: pick.prompt.lead.line),
    Column("id", "string", "the prompt's own id; null if it has none", lambda pick: pick.prompt.lead.id),
    Column("category", "string", "the prompt's category; null if it has none", lambda pick: pick.prompt.lead.category),
    Column("is_safety", "bool", "a safety prompt: R_s alone ranks", lambda pick: pick.prompt.lead.is_safety),
)
"""Which prompt a row is about."""

ORIGIN: tuple[Column[Pick], ...] = (
    Column(
        "run", "string", "folder name of the answer's run; null unless runs were merged", lambda pick: pick.answer.run
    ),
    Column("run_line", "int64", "the prompt's line in that run; `line`, unless runs were merged", where),
    Column(
        "index",
        "int64",
        "the answer's number among that run's candidates, from 0",
        lambda pick: pick.answer.scored.index,
    ),
    Column("rank", "int64", "its rank among all answers to the prompt; 0 is the winner", lambda pick: pick.answer.rank),
)
"""Where an answer came from."""

SAMPLING: tuple[Column[Pick], ...] = (
    Column("temperature", "float64", "what it was sampled at", lambda pick: pick.answer.arm.temperature),
    Column(
        "context_distilled",
        "bool",
        "sampled behind a preprompt that is not part of the prompt",
        lambda pick: pick.answer.arm.preprompt is not None,
    ),
    Column(
        "finish_reason",
        "string",
        "`stop`, or `length` if the token limit cut it off",
        lambda pick: pick.answer.scored.finish_reason,
    ),
    Column("tokens", "int64", "how many were sampled, EOS included", lambda pick: pick.answer.scored.tokens),
)
"""How an answer was sampled."""
