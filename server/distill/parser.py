"""Parsing of input rows: a row is a prompt to answer, or a problem.

Rows have one of four shapes: `prompt` (a text or messages), `messages`, ShareGPT's `conversations`, or a line
of an OpenAI batch. Unknown keys are ignored: data sets have many. A null counts as absent. The last message of
`messages` and of `conversations`, if it is the assistant's, is the data set's own answer and is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import orjson
from pydantic import ValidationError

from winnow.clients.schema import ChatRequest
from winnow.clients.validation_errors import describe_invalid
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import BadLine, DialogError, SamplingError
from winnow.models.types import Message
from winnow.server.distill.reader import BOM, OPTIONS, SHAPES, Row, Source
from winnow.server.distill.records import Problem
from winnow.server.pipeline.request import RequestOptions, messages_of, token_biases

URL = "/v1/chat/completions"
MOST_KEYS, MOST_SHOWN = 10, 300
_ROLES = {"developer": "system", "human": "user", "gpt": "assistant"}
"""Other names for the template's roles."""
_UNSUPPORTED = ("stream", "logprobs", "return_candidates", "deadline_ms", "accept_reward", "early_rejection")
"""Fields of a batch line's body that an offline run cannot honour."""
_HASHED = (
    "candidates", "n", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "presence_penalty",
    "frequency_penalty", "logit_bias", "seed", "combiner",
)  # fmt: skip
"""The options that are part of a task's digest, in the order in which they are hashed."""
_HASHED_IF_GIVEN = ("min_tokens", "ignore_eos", "repetition_penalty")
"""Further options of that kind, hashed only where they are set."""


_hash = partial(hashlib.blake2b, digest_size=16)


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt to answer.

    `line` counts from 1 over the whole input, blank and bad lines included, so that it never shifts;
    `file_line` counts within `file`, a name without folders, "-" for standard input. `messages` ends with the
    user's. `instruction` is for ghost attention.
    """

    line: int
    file: str
    file_line: int
    id: str | None
    messages: tuple[Message, ...]
    category: str | None = None
    instruction: str | None = None
    options: RequestOptions = field(default_factory=RequestOptions)

    @property
    def digest(self) -> str:
        """The 128-bit hash, in hex, of the id and everything asked, independent of the line's place."""
        options = {name: getattr(self.options, name) for name in _HASHED}
        given = {name: getattr(self.options, name) for name in _HASHED_IF_GIVEN}
        options |= {name: value for name, value in given.items() if value is not None}
        if self.options.logit_bias:
            biases = token_biases(self.options.logit_bias).items()
            options["logit_bias"] = dict(sorted((str(token), bias) for token, bias in biases))
        asked = (self.id, self.messages, self.options.is_safety, self.category, self.instruction, options)
        return _hash(orjson.dumps(asked)).hexdigest()


def parse(source: Source, template: ChatTemplate) -> Iterator[Task | Problem]:
    """Yield one task or one problem for each row of an input, in order, and nothing for a blank line.

    The first row with an id keeps it, even a bad one; later rows with it are problems. Memory is that of one
    row and 16 bytes of hash for each id. `template` says which dialogs can be rendered.

    Raises:
        RunError: the input is damaged; the rows before the damage have been yielded.
    """
    parser = _Parser(template)
    for row in source.rows():
        yield parser.parse(row)


class _Parser:
    """Parses the rows of one input, whose ids must be unique."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._seen: set[bytes] = set()

    def parse(self, row: Row) -> Task | Problem:
        id: str | None = None
        try:
            body = _object(row.content)
            id = _id(body)
            self._require_new(id)
            shape = _shape(body)
            return self._batch(row, id, body) if shape == "custom_id" else self._plain(row, id, shape, body)
        except BadLine as bad:
            return Problem(row.line, id, row.file, row.file_line, "input", bad.code, str(bad))

    def _require_new(self, id: str | None) -> None:
        if id is None:
            return
        key = _hash(id.encode()).digest()
        if key in self._seen:
            raise BadLine("duplicate_id", "an earlier line has the same id; give each line its own, or none")
        self._seen.add(key)

    def _plain(self, row: Row, id: str | None, shape: str, body: Mapping[str, Any]) -> Task:
        is_safety = body.get("is_safety")
        if not (is_safety is None or isinstance(is_safety, bool)):
            raise BadLine("invalid_type", "is_safety must be true or false")
        category = _text(body, "category")
        system, instruction = self._accepted(body, "system"), self._accepted(body, "instruction")
        messages = self._dialog(shape, body[shape])
        if system is not None:
            if messages[0].role == "system":
                raise BadLine("ambiguous", "the line has system and a system message; keep one of them")
            messages = (Message("system", system), *messages)
        options = RequestOptions(is_safety=is_safety)
        return Task(row.line, row.file, row.file_line, id, messages, category, instruction, options)

    def _accepted(self, body: Mapping[str, Any], key: str) -> str | None:
        """Return the text under a key as a message may contain it; a blank one counts as none."""
        text = _text(body, key)
        return text and self._checked(key, [Message("user", text)])[0].content

    def _dialog(self, shape: str, value: Any) -> tuple[Message, ...]:
        """Return the messages under a shape's key, without the data set's own answer."""
        if shape == "prompt" and isinstance(value, str):
            return self._checked(shape, [Message("user", value)])
        if not isinstance(value, list):
            raise BadLine("invalid_type", f"{shape} must be {'a text or ' * (shape == 'prompt')}a list of messages")
        role, content = ("from", "value") if shape == "conversations" else ("role", "content")
        messages = []
        for index, item in enumerate(value):
            name, text = (item.get(role), item.get(content)) if isinstance(item, Mapping) else (None, None)
            if not (isinstance(name, str) and isinstance(text, str)):
                raise BadLine(
                    "invalid_type", f"{shape}[{index}] must be an object with {role} and {content}, both texts"
                )
            messages.append(Message(_ROLES.get(name, name), text))
        while shape != "prompt" and messages and messages[-1].role == "assistant":
            messages.pop()
            if not self._template.merge_turns:
                break
        return self._checked(shape, messages)

    def _checked(
        self, where: str, messages: Sequence[Message], template: ChatTemplate | None = None
    ) -> tuple[Message, ...]:
        """Return the messages if the template can render them and the last one is not blank."""
        try:
            checked = (template or self._template).validate(messages)
        except DialogError as error:
            raise BadLine(error.code, str(error).replace("messages", where, 1)) from None
        if not checked[-1].content.strip():
            raise BadLine("empty_prompt", f"the last message of {where} is empty; write a prompt, or delete the line")
        return checked

    def _batch(self, row: Row, id: str | None, body: Mapping[str, Any]) -> Task:
        """Parse a line of an OpenAI batch, whose `body` is checked as the server does, except for the model's name."""
        if extra := next((key for key in OPTIONS if key in body), None):
            raise BadLine("unsupported", f"{extra} is not supported beside custom_id; put the request into body")
        if (body.get("method"), body.get("url")) != ("POST", URL):
            raise BadLine("unsupported", f"method must be POST and url {URL}")
        try:
            request = ChatRequest.model_validate(body.get("body"))
        except ValidationError as error:
            detail = describe_invalid(error.errors(include_url=False, include_input=False), body.get("body"))
            raise BadLine(detail.code or "invalid_request", f"body: {_printable(detail.message)}") from None
        asked = {name: getattr(request, name, getattr(request.options, name, None)) for name in _UNSUPPORTED}
        asked["usage"] = request.options.usage == "winner"
        if name := next((name for name, value in asked.items() if value is not None and value is not False), None):
            raise BadLine("unsupported", f"body: {name} is not supported in an offline run; leave it out")
        try:
            token_biases(request.logit_bias or {})
        except SamplingError as error:
            raise BadLine(error.code, f"body: {error}") from None
        merge = request.options.merge_turns
        template = self._template if merge is None else self._template.with_merging(merge)
        messages = self._checked("body.messages", messages_of(request.messages), template)
        return Task(row.line, row.file, row.file_line, id, messages, options=RequestOptions.of(request))


def _object(content: bytes | Mapping[str, Any] | BadLine) -> dict[str, Any]:
    """Return the keys of a row that have a value: tables fill absent ones with nulls."""
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
    """Return the row's id; an empty one counts as none."""
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
    """Return text from the input, bounded, without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:MOST_SHOWN])


def _text(body: Mapping[str, Any], key: str) -> str | None:
    """Return the text under a key; a blank one counts as none."""
    value = body.get(key)
    if not (value is None or isinstance(value, str)):
        raise BadLine("invalid_type", f"{key} must be a text")
    return value if value and value.strip() else None
