"""The calls of a client as data: the request to send, and the function that reads the response. No IO, no waiting."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar

from pydantic import ValidationError

from winnow.clients.answers import Answer
from winnow.clients.errors import InvalidRequest, UnreadableAnswer, kind_of
from winnow.clients.schema import (
    BestOfNOptions,
    ChatCompletion,
    ChatRequest,
    CombinerName,
    Detokenized,
    DetokenizeRequest,
    ModelCard,
    ModelList,
    Rating,
    Request,
    Rewards,
    RewardsRequest,
    Status,
    TokenizeRequest,
    Tokens,
    UsageScope,
    Version,
)
from winnow.clients.validation_errors import describe_invalid

T = TypeVar("T")
Dialog = str | Sequence[Mapping[str, Any]]
"""One user message, or messages with `role` and `content`."""
PROBE_SECONDS = 10.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_IN_BEST_OF_N = tuple(name for name in BestOfNOptions.model_fields if name != "progress")


class Options(TypedDict, total=False):
    """Options of an answer; one that is absent or None takes the server's default. docs/api.md has the ranges."""

    model: str | None  # default: the served model
    candidates: int | Mapping[str, int] | None  # K, or {"min": …, "max": …}: fewer under load
    deadline_ms: float | None  # return the best candidate scored this long after the request's arrival
    accept_reward: float | None  # end once a candidate has this R_c, and abort the rest
    early_rejection: Mapping[str, Any] | None  # {"at_tokens": [8, 16], "keep": 0.5}; approximate
    adaptive: Mapping[str, Any] | Literal[False] | None  # {"stop": {"reward": 0.9}}: waves; False: all K at once
    n: int | None  # number of answers to return
    is_safety: bool | None  # None: the server's safety classifier decides
    combiner: CombinerName | None
    merge_turns: bool | None  # join messages of one role in a row instead of refusing them
    usage: UsageScope | None  # "winner": count the tokens of the returned answers only
    return_candidates: bool | None  # put every candidate's text into `Answer.candidates`
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    max_tokens: int | None
    min_tokens: int | None
    ignore_eos: bool | None
    stop: str | Sequence[str] | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logit_bias: Mapping[int, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    store: bool | None  # record the answer, or do not, where the server leaves it to the request
    user: str | None
    request_id: str | None  # identifies the call in the server's log, through all retries; default: random


def new_request_id() -> str:
    """Return a random id for a call."""
    return f"req_{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call. `read` turns the body and the request id of a success into the result, or raises `ValidationError`."""

    path: str
    read: Callable[[bytes, str], T]
    content: bytes | None = None
    """The JSON of a POST; None makes it a GET."""
    request_id: str = field(default_factory=new_request_id)
    is_probe: bool = False
    """A probe is not retried and has a short timeout."""


def completion(dialog: Dialog, model: str, options: Options, **streaming: Any) -> Call[Answer]:
    """Return the call of `POST /v1/chat/completions`; `streaming` are the body's additional fields for a stream.

    Raises:
        InvalidRequest: the request does not fit the schema.
        TypeError: an option is unknown.
    """
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        raise TypeError(f"unknown option {unknown[0]!r}")
    fields = {name: value for name, value in options.items() if name != "request_id"}
    best_of_n = {name: fields.pop(name, None) for name in _IN_BEST_OF_N} | streaming.pop("best_of_n", {})
    body = {**fields, **streaming, "model": model, "messages": _messages(dialog), "best_of_n": _given(best_of_n)}
    request_id = options.get("request_id")
    if request_id is None:
        request_id = new_request_id()
    elif not _REQUEST_ID.fullmatch(request_id):
        raise InvalidRequest("request_id: 1 to 128 letters, digits, '.', '_', ':' and '-'", param="request_id")
    return Call(
        "/v1/chat/completions",
        lambda reply, answered_id: Answer(ChatCompletion.model_validate_json(reply), answered_id),
        _content(ChatRequest, body),
        request_id,
    )


def streamed(dialog: Dialog, model: str, options: Options, *, progress: bool) -> Call[Answer]:
    """Return the call of `POST /v1/chat/completions` as a stream with usage, and with progress if wanted."""
    streaming = {"stream": True, "stream_options": {"include_usage": True}, "best_of_n": {"progress": progress or None}}
    return completion(dialog, model, options, **streaming)


def rewards(dialog: Dialog, answers: Sequence[str], model: str, options: Mapping[str, Any]) -> Call[list[Rating]]:
    """Return the call of `POST /v1/rewards`."""
    body = {"model": model, "messages": _messages(dialog), "answers": answers, **options}
    return Call(
        "/v1/rewards",
        lambda reply, _: Rewards.model_validate_json(reply).rewards,
        _content(RewardsRequest, body),
    )


def tokenize(text: Dialog, options: Mapping[str, Any]) -> Call[Tokens]:
    """Return the call of `POST /tokenize`, for a raw text or for a dialog."""
    content = "prompt" if isinstance(text, str) else "messages"
    return Call(
        "/tokenize",
        lambda reply, _: Tokens.model_validate_json(reply),
        _content(TokenizeRequest, {content: text, **options}),
    )


def detokenize(tokens: Sequence[int]) -> Call[str]:
    """Return the call of `POST /detokenize`."""
    return Call(
        "/detokenize",
        lambda reply, _: Detokenized.model_validate_json(reply).prompt,
        _content(DetokenizeRequest, {"tokens": tokens}),
    )


def version() -> Call[Version]:
    """Return the call of `GET /version`."""
    return Call("/version", lambda reply, _: Version.model_validate_json(reply))


def models() -> Call[list[ModelCard]]:
    """Return the call of `GET /v1/models`; it rejects an empty list, which Winnow never sends."""

    def read(reply: bytes, _: str) -> list[ModelCard]:
        cards = ModelList.model_validate_json(reply).data
        if not cards:
            raise UnreadableAnswer("the server lists no model")
        return cards

    return Call("/v1/models", read)


def probe(path: str) -> Call[Status]:
    """Return the call of `GET /health` or `/ready`."""
    return Call(path, lambda reply, _: Status.model_validate_json(reply), is_probe=True)


def _messages(dialog: Dialog) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": dialog}] if isinstance(dialog, str) else dialog


def _given(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in fields.items() if value is not None} or None


def _content(kind: type[Request], body: Mapping[str, Any]) -> bytes:
    """Return the JSON of `body` after validating it as `kind`.

    A lone surrogate passes the encoder and is rejected by the validation, like any other invalid text.
    """
    content = json.dumps(_given(body), ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
    try:
        kind.model_validate_json(content)
    except ValidationError as error:
        detail = describe_invalid(error.errors(include_url=False), body)
        raise kind_of(detail.code, 400)(detail.message, code=detail.code, param=detail.param) from None
    return content


def _plain(value: Any) -> Any:
    """Convert other mappings and sequences to `dict` and `list`, for the JSON encoder."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")
