"""The JSON bodies on the wire, shared by the server and the clients.

OpenAI's chat-completion bodies plus the `best_of_n` object. Requests are strict: a field that the server would not honour
is refused by name, except at the value that asks for nothing. `docs/api.md` documents every field.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

CombinerName = Literal["llama2", "safe_first"]
BranchName = Literal["safety_prompt", "unsafe", "helpful"]
FinishReason = Literal["stop", "length"]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1)]


class Request(BaseModel):
    """A request body: unknown fields are refused, and nothing is coerced ("2" is not 2)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Known fields that are not supported, with the values at which they ask for nothing and are passed over."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        if not isinstance(body, dict) or not cls.neutral:
            return body
        for name, values in cls.neutral.items():
            if name in body and not any(type(body[name]) is type(value) and body[name] == value for value in values):
                raise PydanticCustomError("unsupported", "{param} is not supported", {"param": name})
        return {name: value for name, value in body.items() if name not in cls.neutral}


class TextPart(Request):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: str


class ChatMessage(Request):
    """One message of a dialog; `developer` means system, text parts are joined.

    The fields that an answer of ours or of OpenAI's carries as null are passed over, so that it can be sent back as it came.
    """

    neutral = {
        "annotations": (None, []),
        "audio": (None,),
        "function_call": (None,),
        "name": (None,),
        "refusal": (None,),
        "tool_calls": (None, []),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Request):
    """What a stream carries besides the answer."""

    include_usage: bool | None = False


class BestOfNOptions(Request):
    """How the best answer is found; None takes the server's default.

    `is_safety` None lets the server's tagger decide. `return_candidates` puts every candidate's text into `scored`.
    """

    neutral = {"deadline_ms": (None,), "accept_reward": (None,)}

    candidates: Count | None = None
    is_safety: bool | None = None
    combiner: CombinerName | None = None
    return_candidates: bool | None = None


class ChatRequest(Request):
    """The body of `POST /v1/chat/completions`."""

    neutral = {
        "audio": (None,),
        "function_call": (None, "none"),
        "functions": (None, []),
        "logprobs": (None, False),
        "metadata": (None, {}),
        "modalities": (None, ["text"]),
        "parallel_tool_calls": (None, True, False),
        "prediction": (None,),
        "reasoning_effort": (None, "none"),
        "response_format": (None, {"type": "text"}),
        "service_tier": (None, "auto", "default"),
        "store": (None, False),
        "tool_choice": (None, "none", "auto"),
        "tools": (None, []),
        "top_logprobs": (None, 0),
        "verbosity": (None,),
        "web_search_options": (None,),
    }

    model: str
    messages: list[ChatMessage]
    n: Count | None = None
    best_of: Count | None = None
    best_of_n: BestOfNOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    user: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        requested = {self.best_of, self.best_of_n and self.best_of_n.candidates} - {None}
        if len(requested) > 1:
            raise _invalid("best_of", "best_of and best_of_n.candidates disagree; send one of them")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise _invalid("max_tokens", "max_tokens and max_completion_tokens disagree; send one of them")
        if self.stream_options is not None and not self.stream:
            raise _invalid("stream_options", "stream_options is only allowed when stream is true")
        return self

    @property
    def options(self) -> BestOfNOptions:
        """The `best_of_n` object, with its defaults if none was sent."""
        return self.best_of_n or BestOfNOptions()

    @property
    def candidates(self) -> int | None:
        """K as asked for, by either name."""
        return self.options.candidates or self.best_of

    @property
    def token_limit(self) -> int | None:
        """Most tokens of the answer, by either name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none to four."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class RewardsRequest(Request):
    """The body of `POST /v1/rewards`: score given answers to one dialog."""

    model: str
    messages: list[ChatMessage]
    answers: list[str]
    is_safety: bool | None = None


def _invalid(param: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_request", "{message}", {"message": message, "param": param})


class Response(BaseModel):
    """A response body; fields this version does not know are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    optional: ClassVar[frozenset[str]] = frozenset()
    """Fields left out of the JSON while they are None; all others are always there, null if need be."""

    @model_serializer(mode="wrap")
    def _leave_out(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = serialize(self)
        return {name: value for name, value in body.items() if value is not None or name not in self.optional}


class AnswerMessage(Response):
    """The answer; `refusal` is always null, for OpenAI's schema."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(Response):
    """A returned answer; choices are ranked, index 0 is the winner."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class Usage(Response):
    """Token counts; `completion_tokens` counts all K candidates, the returned and the others."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Rating(Response):
    """What the reward models said of an answer, each in (0, 1); `helpfulness` is null unless `branch` is `helpful`."""

    index: int
    safety: float
    helpfulness: float | None
    combined: float
    branch: BranchName


class Scored(Rating):
    """A candidate's rating and rank (0 is the winner); `text` is there when `return_candidates` was asked for."""

    optional = frozenset({"text"})

    rank: int
    finish_reason: FinishReason
    tokens: int
    text: str | None = None


class Failed(Response):
    """A candidate that could not be sampled or scored, and why."""

    index: int
    reason: str


class TimingsMs(Response):
    """Where the time went, in milliseconds; see `winnow.models.types.Timings`."""

    queue: float
    first_candidate: float
    generate: float
    score_tail: float
    total: float


class BestOfNReport(Response):
    """Why the winner won. `winner` is the `index` in `scored` of choice 0; `scored` lists every scored candidate."""

    candidates: int
    finished: int
    winner: int
    is_safety: bool
    combiner: CombinerName
    winner_tokens: int
    scored: list[Scored]
    failed: list[Failed]
    timings_ms: TimingsMs


class ChatCompletion(Response):
    """The answer to `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    best_of_n: BestOfNReport


class Delta(Response):
    """What a stream's chunk adds to a choice."""

    optional = frozenset({"role", "content", "refusal"})

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None


class ChunkChoice(Response):
    """A choice's part in a chunk."""

    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Response):
    """One event of a stream."""

    optional = frozenset({"usage", "best_of_n"})

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    best_of_n: BestOfNReport | None = None


class Rewards(Response):
    """The answer to `POST /v1/rewards`, in the order of the request's answers."""

    object: Literal["list"] = "list"
    model: str
    rewards: list[Rating]


class ModelCard(Response):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "winnow"


class ModelList(Response):
    """The served models: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(Response):
    """The answer of `/health` and `/ready`."""

    status: Literal["ok", "ready", "dead"]


class Version(Response):
    """The answer of `/version`."""

    version: str


class ErrorDetail(Response):
    """What went wrong; `code` is the machine-readable reason, or null."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Response):
    """The body of every error."""

    error: ErrorDetail
