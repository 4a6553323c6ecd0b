"""Reads what any OpenAI-compatible server sends, leniently: a chat completion, whole or as a stream, and a list of models. No IO.

Unlike `winnow.clients.streams` it takes servers that are not Winnow, and notes when the first byte came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from winnow.clients.sse import EventDecoder
from winnow.loadtests.types import Reply

MOST_BYTES = 64 << 20
"""Of an answer; a server that sends without end must not fill the tester's memory."""


class NotACompletion(Exception):
    """A success that is no whole chat completion."""


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
    """The id of the first model in a list of models, and who owns it.

    Raises:
        NotACompletion: it is no such list, or an empty one.
    """
    try:
        models = _Models.model_validate_json(content).data
    except ValidationError:
        raise NotACompletion("what answers there lists no models as OpenAI does") from None
    if not models:
        raise NotACompletion("the server lists no model")
    return models[0].id, models[0].owned_by


@dataclass(slots=True)
class Completion:
    """One answer, fed as it arrives. Of several choices the first one's text is kept."""

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
        """Take some bytes that came at `now`.

        Raises:
            NotACompletion: an event is none of a completion's, tells an error, or the answer is too large.
        """
        self._size += len(chunk)
        if self._size > MOST_BYTES:
            raise NotACompletion(f"the answer has more than {MOST_BYTES >> 20} MiB")
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
            raise NotACompletion("the server's success is no chat completion") from None
        if body.error is not None:
            told = body.error.get("message") if isinstance(body.error, dict) else body.error
            raise NotACompletion(f"the answer broke off: {told}")
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
        """The reply, once everything has been fed, the end at `now`.

        Raises:
            NotACompletion: something is missing.
        """
        if not self.is_stream:
            self._take(b"".join(self._pieces), now)
            self._done = now
        if self._done is None or not self._choices:
            raise NotACompletion("the answer ended before it was whole")
        sampled = self._usage.completion_tokens or 0
        report = self._report
        winner = _count(report.get("winner_tokens")) if report else sampled * (len(self._choices) == 1)
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
        """What Winnow reports, but for its lists, the winner's R_c as `winner_combined`, and what every server tells."""
        told = {name: value for name, value in self._report.items() if not isinstance(value, list)}
        told |= {"prompt_tokens": self._usage.prompt_tokens, "finish_reason": self._finish_reason}
        told["winner_combined"] = _winner_combined(self._report)
        return {name: value for name, value in told.items() if value is not None}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


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
    """Seconds, from Winnow's milliseconds."""
    timings = report.get("timings_ms")
    tail = timings.get("score_tail") if isinstance(timings, dict) else None
    return tail / 1000 if isinstance(tail, int | float) else None
