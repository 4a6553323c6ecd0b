"""Parsing of input rows: a row is a prompt to answer, or a problem.

Rows have one of the layouts of `winnow.server.distill.layouts`, or are lines of an OpenAI batch. Unknown keys are
ignored: data sets have many. A null counts as absent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import orjson
from pydantic import ValidationError

from winnow.clients.schema import ChatRequest
from winnow.clients.validation_errors import describe_invalid
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import BadLine, DialogError, RunError, SamplingError
from winnow.models.types import Message
from winnow.server.distill import layouts
from winnow.server.distill.dialogs import asked, asked_turns, joined, printable
from winnow.server.distill.layouts import BATCH, OPTIONS, Body, Reply, text_of
from winnow.server.distill.reader import Row, Source
from winnow.server.distill.records import Problem
from winnow.server.distill.rows import row_object
from winnow.server.pipeline.request import RequestOptions, messages_of, token_biases

URL = "/v1/chat/completions"
OTHER_CATEGORY = "a category that is no text is not used"
FIRST_ROWS = 100
"""Rows that are looked at before anything is started."""
UNREADABLE = {
    "invalid_json", "invalid_utf8", "invalid_csv", "line_too_long", "not_an_object", "unknown_shape", "ambiguous",
    "invalid_type",
}  # fmt: skip
"""Codes of rows whose layout is not understood; other problems are about what a row says."""
_UNSUPPORTED = (
    "stream",
    "logprobs",
    "return_candidates",
    "deadline_ms",
    "accept_reward",
    "early_rejection",
)
"""Fields of a batch line's body that an offline run cannot honour."""
_HASHED = (
    "candidates", "n", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "presence_penalty",
    "frequency_penalty", "logit_bias", "seed", "combiner",
)  # fmt: skip
"""The options that are part of a task's digest, in the order in which they are hashed."""
_HASHED_IF_GIVEN = ("min_tokens", "ignore_eos", "repetition_penalty", "adaptive")
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
        content = (self.id, self.messages, self.options.is_safety, self.category, self.instruction, options)
        return _hash(orjson.dumps(content)).hexdigest()


def parse(
    source: Source, template: ChatTemplate, remark: Callable[[str], object] = lambda _: None
) -> Iterator[Task | Problem]:
    """Yield one task or one problem for each row of an input, in order; nothing for a blank row, or for a reply.

    The first row with an id keeps it, even a bad one; later rows with it are problems. Memory is that of one
    row and 16 bytes of hash for each id. `template` says which dialogs can be rendered. `remark` is called
    once with each remark on what is left out of the rows.

    Raises:
        RunError: the input is damaged; the rows before the damage have been yielded.
    """
    parser = _Parser(template, remark)
    for row in source.rows():
        if entry := parser.parse(row):
            yield entry


def require_readable(source: Source, template: ChatTemplate) -> None:
    """Check the first rows of an input: at least one must have a layout that is understood.

    Raises:
        RunError: none has; the message shows the most frequent reason, at its first row.
    """
    found = list(islice(parse(source, template), FIRST_ROWS))
    problems = [item for item in found if isinstance(item, Problem) and item.code in UNREADABLE]
    if not problems or len(problems) < len(found):
        return
    (code, _), *_ = Counter(item.code for item in problems).most_common(1)
    first = next(item for item in problems if item.code == code)
    rows = f"none of its first {len(found)} rows can" if len(found) > 1 else "its first row cannot"
    raise RunError(
        f"{source.name}: {rows} be read as {source.kind}. Row {first.line} of the input, line {first.file_line} of "
        f"{first.file}: {first.message}. docs/offline.md shows the layouts; --input-format names another format"
    )


class _Parser:
    """Parses the rows of one input, whose ids must be unique."""

    def __init__(self, template: ChatTemplate, remark: Callable[[str], object]) -> None:
        self._template = template
        self._remark = remark
        self._remarks: set[str] = set()
        self._seen: set[bytes] = set()

    def parse(self, row: Row) -> Task | Problem | None:
        """Return None for a row that is a reply within a thread."""
        id: str | None = None
        try:
            body = row_object(row.content)
            id = _id(body)
            self._require_new(id)
            return self._batch(row, id, body) if BATCH in body else self._plain(row, id, body)
        except BadLine as bad:
            return Problem(row.line, id, row.file, row.file_line, "input", bad.code, str(bad))

    def _say(self, remark: str | None) -> None:
        if remark and remark not in self._remarks:
            self._remarks.add(remark)
            self._remark(remark)

    def _require_new(self, id: str | None) -> None:
        if id is None:
            return
        key = _hash(id.encode()).digest()
        if key in self._seen:
            raise BadLine("duplicate_id", "an earlier row has the same id; give each row its own, or none")
        self._seen.add(key)

    def _plain(self, row: Row, id: str | None, body: Body) -> Task | None:
        is_safety = body.get("is_safety")
        if not (is_safety is None or isinstance(is_safety, bool)):
            raise BadLine("invalid_type", "is_safety must be true or false")
        reading = layouts.read(body, asked_turns if self._template.merge_turns else asked)
        self._say(reading.remark)
        if isinstance(reading, Reply):
            return None
        given = {key: value for key, value in body.items() if key != reading.key}
        category = self._category(given)
        system, instruction = self._accepted(given, "system"), self._accepted(given, "instruction")
        messages = self._checked(reading.key, reading.messages)
        if system is not None:
            if messages[0].role == "system":
                raise BadLine("ambiguous", "the row has system and a system message; keep one of them")
            messages = (Message("system", system), *messages)
        options = RequestOptions(is_safety=is_safety)
        return Task(row.line, row.file, row.file_line, id, messages, category, instruction, options)

    def _category(self, body: Body) -> str | None:
        """Return the text under `category`; an object or a list is the data set's own (BeaverTails), and no option."""
        if isinstance(body.get("category"), (Mapping, list)):
            self._say(OTHER_CATEGORY)
            return None
        return text_of(body, "category")

    def _accepted(self, body: Body, key: str) -> str | None:
        """Return the text under a key as a message may contain it; a blank one counts as none."""
        given = body.get(key)
        text = text_of({key: joined(key, given)} if key == "system" and isinstance(given, list) else body, key)
        return text and self._checked(key, [Message("user", text)])[0].content

    def _checked(
        self, where: str, messages: Sequence[Message], template: ChatTemplate | None = None
    ) -> tuple[Message, ...]:
        """Return the messages if the template can render them and the last one is not blank."""
        try:
            checked = (template or self._template).validate(messages)
        except DialogError as error:
            raise BadLine(error.code, str(error).replace("messages", where, 1)) from None
        if not checked[-1].content.strip():
            raise BadLine("empty_prompt", f"the last message of {where} is empty; write a prompt, or delete the row")
        return checked

    def _batch(self, row: Row, id: str | None, body: Body) -> Task:
        """Parse a line of an OpenAI batch, whose `body` is checked as the server does, except for the model's name."""
        if (names := layouts.names_in(body)) != BATCH:
            raise BadLine("ambiguous", f"the row has {names}; keep one of them")
        if extra := next((key for key in OPTIONS if key in body), None):
            raise BadLine("unsupported", f"{extra} is not supported beside custom_id; put the request into body")
        if (body.get("method"), body.get("url")) != ("POST", URL):
            raise BadLine("unsupported", f"method must be POST and url {URL}")
        try:
            request = ChatRequest.model_validate(body.get("body"))
        except ValidationError as error:
            detail = describe_invalid(error.errors(include_url=False, include_input=False), body.get("body"))
            raise BadLine(detail.code or "invalid_request", f"body: {printable(detail.message)}") from None
        _require_supported(request)
        try:
            token_biases(request.logit_bias or {})
        except SamplingError as error:
            raise BadLine(error.code, f"body: {error}") from None
        merge = request.options.merge_turns
        template = self._template if merge is None else self._template.with_merging(merge)
        messages = self._checked("body.messages", messages_of(request.messages), template)
        return Task(row.line, row.file, row.file_line, id, messages, options=RequestOptions.of(request))


def _require_supported(request: ChatRequest) -> None:
    """Check that a batch line's body asks for nothing that an offline run cannot do; all such fields are named."""
    given = {name: getattr(request, name, getattr(request.options, name, None)) for name in _UNSUPPORTED}
    given["usage"] = request.options.usage == "winner"
    names = [name for name, value in given.items() if value is not None and value is not False]
    if names:
        is_, it = ("is", "it") if len(names) == 1 else ("are", "them")
        named = ", ".join(names)
        raise BadLine("unsupported", f"body: {named} {is_} not supported in an offline run; leave {it} out")


def _id(body: Mapping[str, Any]) -> str | None:
    """Return the row's id; an empty one counts as none."""
    value = body.get("id")
    if BATCH in body:
        value = text_of(body, BATCH)
        if value is None:
            raise BadLine("invalid_type", "custom_id is empty; give each row its own")
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    elif not (value is None or isinstance(value, str)):
        raise BadLine("invalid_type", "id must be a text or an integer of at most 64 bits")
    return value if value and value.strip() else None
