"""What an input row means: a prompt to answer, or what is wrong with it.

Rows have one of four shapes: `prompt` (a text or messages), `messages`, ShareGPT's `conversations`, or a line of an OpenAI
batch. ApiKeys without a meaning here are passed over: data sets carry many. A null counts as absent. The last message of
`messages` and of `conversations`, if it is the assistant's, is the data set's own answer and is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import orjson
from pydantic import ValidationError

from winnow.clients.schema import ChatRequest
from winnow.clients.validation_errors import describe_invalid
from winnow.models.chat_templates.llama2 import TAGS, check_dialog
from winnow.models.errors import BadLine, DialogError
from winnow.models.types import CombinerName, Message
from winnow.server.distill.reader import BOM, OPTIONS, SHAPES, Row, Source
from winnow.server.distill.records import Problem

URL = "/v1/chat/completions"
MOST_KEYS, MOST_SHOWN = 10, 300
_ROLES = {"developer": "system", "human": "user", "gpt": "assistant"}
"""Other names for the template's roles."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a line asks for itself, beyond the run's settings; None where it asks for nothing.

    Ranges are those of `winnow.clients.schema.ChatRequest`; nothing is compared with the settings or the vocabulary yet.
    """

    candidates: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    combiner: CombinerName | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt to answer.

    `line` counts from 1 over the whole input, blank and bad lines as well, so that it never shifts; `file_line` within
    `file`, a name without folders, "-" for standard input. `digest` is the 128-bit hash, as hex, of the id and the fields
    after it: of what is asked, whatever the file. `messages` ends with the user's. `instruction` is for ghost attention.
    """

    line: int
    file: str
    file_line: int
    id: str | None
    digest: str
    messages: tuple[Message, ...]
    is_safety: bool | None = None
    category: str | None = None
    instruction: str | None = None
    overrides: Overrides = Overrides()


_Asked = tuple[
    tuple[Message, ...], bool | None, str | None, str | None, Overrides
]  # a task's fields from `messages` on


def read(source: Source) -> Iterator[Task | Problem]:
    """What every row of an input means, in order: one task or one problem each, and nothing for a blank line.

    The first row that carries an id keeps it, even a bad one; later rows with it are problems. Memory is that of one row and
    16 bytes of hash for each id.

    Raises:
        RunError: the input is damaged; the rows before the damage have been given.
    """
    seen: set[bytes] = set()
    for row in source.rows():
        yield _read(row, seen)


def _read(row: Row, seen: set[bytes]) -> Task | Problem:
    id: str | None = None
    try:
        body = _object(row.content)
        id = _id(body)
        if id is not None:
            key = _hash(id.encode()).digest()
            if key in seen:
                raise BadLine("duplicate_id", "an earlier line has the same id; give each line its own, or none")
            seen.add(key)
        shape = _shape(body)
        asked = _batch(body) if shape == "custom_id" else _plain(shape, body)
    except BadLine as bad:
        return Problem(row.line, id, row.file, row.file_line, "input", bad.code, str(bad))
    content = orjson.dumps((id, *asked), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return Task(row.line, row.file, row.file_line, id, _hash(content).hexdigest(), *asked)


_hash = partial(hashlib.blake2b, digest_size=16)


def _object(content: bytes | Mapping[str, Any] | BadLine) -> dict[str, Any]:
    """The keys of a row that have a value: tables fill what a row does not have with nulls."""
    if isinstance(content, BadLine):
        raise content
    body = _parse(content) if isinstance(content, bytes) else content
    if not isinstance(body, Mapping):
        raise BadLine("not_an_object", 'the line is not a JSON object; write one object a line, as in {"prompt": "…"}')
    return {key: value for key, value in body.items() if value is not None}


def _parse(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.startswith(BOM):
            raise BadLine("invalid_json", "a byte order mark stands inside the file; remove it") from None
        try:
            line.decode()
        except UnicodeDecodeError:
            raise BadLine("invalid_utf8", "the line is not UTF-8; save the file as UTF-8") from None
        raise BadLine("invalid_json", f"the line is not JSON, at character {error.colno}: {error.msg}") from None


def _id(body: Mapping[str, Any]) -> str | None:
    """The row's id; an empty one counts as none."""
    value = body.get("id")
    if "custom_id" in body:
        value = _text(body, "custom_id")
        if value is None:
            raise BadLine("invalid_type", "custom_id is empty; give each line its own")
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    elif not (value is None or isinstance(value, str)):
        raise BadLine("invalid_type", "id must be a text or an integer of at most 64 bits")
    return value if value and value.strip() else None


def _shape(body: Mapping[str, Any]) -> str:
    shapes = [shape for shape in SHAPES if shape in body]
    if len(shapes) == 1:
        return shapes[0]
    if shapes:
        raise BadLine("ambiguous", f"the line has {' and '.join(shapes)}; keep one of them")
    keys = ", ".join(islice(body, MOST_KEYS)) or "none"
    raise BadLine("unknown_shape", f"the line has none of {', '.join(SHAPES)}; its keys are: {_printable(keys)}")


def _printable(text: str) -> str:
    """Names that the line made up, bounded, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text[:MOST_SHOWN])


def _plain(shape: str, body: Mapping[str, Any]) -> _Asked:
    is_safety = body.get("is_safety")
    if not (is_safety is None or isinstance(is_safety, bool)):
        raise BadLine("invalid_type", "is_safety must be true or false")
    system, category, instruction = (_text(body, key) for key in ("system", "category", "instruction"))
    if tag := next((tag for tag in TAGS if tag in f"{system} {instruction}"), None):
        raise BadLine("invalid_messages", f"system or instruction holds the template's own tag {tag}; take it out")
    messages = _dialog(shape, body[shape])
    if system is not None:
        if messages[0].role == "system":
            raise BadLine("ambiguous", "the line has system and a system message; keep one of them")
        messages = (Message("system", system), *messages)
    return messages, is_safety, category, instruction, Overrides()


def _text(body: Mapping[str, Any], key: str) -> str | None:
    """The text under a key; a blank one counts as none."""
    value = body.get(key)
    if not (value is None or isinstance(value, str)):
        raise BadLine("invalid_type", f"{key} must be a text")
    return value if value and value.strip() else None


def _dialog(shape: str, value: Any) -> tuple[Message, ...]:
    """The messages under a shape's key, a data set's own answer to them left out."""
    if shape == "prompt" and isinstance(value, str):
        return _checked(shape, [Message("user", value)])
    if not isinstance(value, list):
        raise BadLine("invalid_type", f"{shape} must be {'a text or ' * (shape == 'prompt')}a list of messages")
    role, content = ("from", "value") if shape == "conversations" else ("role", "content")
    messages = []
    for index, item in enumerate(value):
        name, text = (item.get(role), item.get(content)) if isinstance(item, Mapping) else (None, None)
        if not (isinstance(name, str) and isinstance(text, str)):
            raise BadLine("invalid_type", f"{shape}[{index}] must be an object with {role} and {content}, both texts")
        messages.append(Message(_ROLES.get(name, name), text))
    if shape != "prompt" and messages and messages[-1].role == "assistant":
        messages.pop()
    return _checked(shape, messages)


def _checked(where: str, messages: list[Message]) -> tuple[Message, ...]:
    """The messages, if the template can render them and they ask something."""
    try:
        check_dialog(messages)
    except DialogError as error:
        raise BadLine(error.code, str(error).replace("messages", where, 1)) from None
    if not messages[-1].content.strip():
        raise BadLine("empty_prompt", f"the last message of {where} is empty; write what is asked, or drop the line")
    return tuple(messages)


def _batch(body: Mapping[str, Any]) -> _Asked:
    """A line of an OpenAI batch, whose `body` is checked as the server would check it, but for the model's name."""
    if extra := next((key for key in OPTIONS if key in body), None):
        raise BadLine("unsupported", f"{extra} is not supported beside custom_id; what is asked stands in body")
    if (body.get("method"), body.get("url")) != ("POST", URL):
        raise BadLine("unsupported", f"method must be POST and url {URL}")
    try:
        request = ChatRequest.model_validate(body.get("body"))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        detail = describe_invalid(problem, problem["loc"])
        raise BadLine(detail.code or "invalid_request", f"body: {_printable(detail.message)}") from None
    asked = {name: getattr(request, name, getattr(request.options, name, None)) for name in _REFUSED}
    if name := next((name for name, value in asked.items() if value is not None and value is not False), None):
        raise BadLine("unsupported", f"body: {name} is not supported in an offline run; leave it out")
    if not all(token.isascii() and token.isdecimal() and len(token) < 10 for token in request.logit_bias or ()):
        raise BadLine("invalid_sampling", "body: logit_bias: keys are token ids")
    messages = [Message(_ROLES.get(item.role, item.role), item.text) for item in request.messages]
    overrides = Overrides(
        **{name: getattr(request, name) for name in _SAME},
        max_tokens=request.token_limit,
        stop=request.stop_strings or None,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()} or None,
        combiner=request.options.combiner,
    )
    return _checked("body.messages", messages), request.options.is_safety, None, None, overrides


_SAME = ("candidates", "n", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed")
_REFUSED = ("stream", "logprobs", "return_candidates", "deadline_ms", "accept_reward", "early_rejection")
