"""A lenient parser of chat completions, whole or streamed, and of model lists, for any OpenAI-compatible server.

Unlike `winnow.clients.streams` it accepts servers other than Winnow, and records when the first byte arrived. No IO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from winnow.clients.sse import EventDecoder
from winnow.loadtests.types import Reply

MAX_BYTES = 64 << 20
"""Size limit of an answer, so that a server that sends without end does not fill the load tester's memory."""


class InvalidCompletion(Exception):
    """A success that is not a complete chat completion."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Text(_Part):
    content: str | None = None


class _Choice(_Part):
    index: int = 0
    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None


class _Usage(_Part):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(_Part):
    """A completion, or a chunk of one."""

    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    best_of_n: dict[str, Any] | None = None
    error: dict[str, Any] | str | None = None


class _Model(_Part):
    id: str
    owned_by: str | None = None


class _Models(_Part):
    data: tuple[_Model, ...]


def first_model(content: bytes) -> tuple[str, str | None]:
    """Return the id and the owner of the first model in a model list.

    Raises:
        InvalidCompletion: the content is not a model list, or an empty one.
    """
    try:
        models = _Models.model_validate_json(content).data
    except ValidationError:
        raise InvalidCompletion("the server at this address lists no models as OpenAI does") from None
    if not models:
        raise InvalidCompletion("the server lists no model")
    return models[0].id, models[0].owned_by


@dataclass(slots=True)
class CompletionParser:
    """Parses one answer, chunk by chunk as it arrives. Of several choices, it keeps the text of the first."""

    is_stream: bool
    _first_byte: float | None = None
    _done: float | None = None
    _size: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _events: EventDecoder = field(default_factory=EventDecoder)
    _text: list[str] = field(default_factory=list)
    _choices: set[int] = field(default_factory=set)
    _finish_reason: str | None = None
    _usage: _Usage = field(default_factory=_Usage)
    _report: Mapping[str, Any] = field(default_factory=dict)

    def feed(self, chunk: bytes, now: float) -> None:
        """Parse bytes that arrived at `now`.

        Raises:
            InvalidCompletion: an event is not a completion's, carries an error, or the answer is too large.
        """
        self._size += len(chunk)
        if self._size > MAX_BYTES:
            raise InvalidCompletion(f"the answer has more than {MAX_BYTES >> 20} MiB")
        if not self.is_stream:
            self._first_byte = self._first_byte or now
            self._pieces.append(chunk)
            return
        for event in self._events.feed(chunk):
            if event.strip() == b"[DONE]":
                self._done = self._done or now
            else:
                self._take(event, now)

    def _take(self, content: bytes, now: float) -> None:
        try:
            body = _Body.model_validate_json(content)
        except ValidationError:
            raise InvalidCompletion("the server's success is no chat completion") from None
        if body.error is not None:
            reason = body.error.get("message") if isinstance(body.error, dict) else body.error
            raise InvalidCompletion(f"the answer broke off: {reason}")
        for choice in body.choices:
            text = choice.message or choice.delta
            self._choices.add(choice.index)
            if text and text.content:
                self._first_byte = self._first_byte or now
                if choice.index == 0:
                    self._text.append(text.content)
            if choice.index == 0:
                self._finish_reason = choice.finish_reason or self._finish_reason
        self._usage = body.usage or self._usage
        if body.best_of_n and "progress" not in body.best_of_n:
            self._report = body.best_of_n

    def reply(self, now: float) -> Reply:
        """Return the reply; call it at the end of the response, which came at `now`.

        Raises:
            InvalidCompletion: the answer is incomplete.
        """
        if not self.is_stream:
            self._take(b"".join(self._pieces), now)
            self._done = now
        if self._done is None or not self._choices:
            raise InvalidCompletion("the answer ended before it was whole")
        sampled, report = _count(self._usage.completion_tokens), self._report
        winner = _count(report.get("winner_tokens")) if report else sampled if len(self._choices) == 1 else None
        return Reply(
            "answered",
            self._done,
            first_byte=self._first_byte,
            text="".join(self._text),
            candidates=_count(report.get("finished", report.get("candidates"))) or len(self._choices),
            sampled_tokens=sampled,
            winner_tokens=winner,
            score_tail=_score_tail(report),
            details=self._details(),
        )

    def _details(self) -> dict[str, Any]:
        """Return Winnow's report without lists, the winner's R_c as `winner_combined`, and the common fields."""
        found = {name: value for name, value in self._report.items() if not isinstance(value, list)}
        found |= {"prompt_tokens": self._usage.prompt_tokens, "finish_reason": self._finish_reason}
        found["winner_combined"] = _winner_combined(self._report)
        return {name: value for name, value in found.items() if value is not None}


def _count(value: Any) -> int | None:
    """Return a count as a server reports it; None if it is absent or no count."""
    return value if isinstance(value, int) and value >= 0 else None


def _winner_combined(report: Mapping[str, Any]) -> float | None:
    scored = report.get("scored")
    rewards = (
        each.get("combined")
        for each in (scored if isinstance(scored, list) else ())
        if isinstance(each, dict) and each.get("index") == report.get("winner")
    )
    reward = next(rewards, None)
    return float(reward) if isinstance(reward, int | float) else None


def _score_tail(report: Mapping[str, Any]) -> float | None:
    """Return the score tail in seconds, from Winnow's milliseconds."""
    timings = report.get("timings_ms")
    tail = timings.get("score_tail") if isinstance(timings, dict) else None
    return tail / 1000 if isinstance(tail, int | float) else None
