"""The JSON bodies on the wire, shared by the server and the clients.

OpenAI's chat and text completion bodies plus the `best_of_n` object. Requests are strict: a field that the server would not honour
is refused by name, except at the value that asks for nothing. `docs/api.md` documents every field.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

CombinerName = Literal["llama2", "safe_first"]
BranchName = Literal["safety_prompt", "unsafe", "helpful"]
FinishReason = Literal["stop", "length", "content_filter"]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
MOST_FIELDS = 64
MOST_MESSAGES = 1000
MOST_PARTS = 64
MOST_BIASES = 1024
MOST_ANSWERS = 1024
MOST_TOKENS = 100_000
MOST_CHECKPOINTS = 16
LONGEST_DEADLINE_MS = 3_600_000


class Request(BaseModel):
    """A request body: unknown fields are refused, and nothing is coerced ("2" is not 2)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Known fields that are not supported, with the values at which they ask for nothing and are passed over."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if len(body) > MOST_FIELDS:
            raise _invalid(None, f"an object has {len(body)} fields; at most {MOST_FIELDS} are read")
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
    content: str | Annotated[list[TextPart], Field(max_length=MOST_PARTS, fail_fast=True)]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Request):
    """What a stream carries besides the answer."""

    neutral = {"include_obfuscation": (None, False)}

    include_usage: bool | None = False


class CandidateRange(Request):
    """K as the load allows: `max`, and under load fewer, but never below `min`."""

    min: Count
    max: Count

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise _invalid("min", f"candidates.min ({self.min}) is above candidates.max ({self.max})")
        return self


class EarlyRejectionOptions(Request):
    """Give up the worst-looking candidates when so many tokens have been sampled; at each checkpoint the share `keep` goes on."""

    at_tokens: Annotated[list[Count], Field(min_length=1, max_length=MOST_CHECKPOINTS, fail_fast=True)]
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.at_tokens)):
            raise _invalid("at_tokens", "early_rejection.at_tokens: each checkpoint is above the one before it")
        return self


def _count_or_range(value: Any) -> str:
    return "[range]" if isinstance(value, dict | CandidateRange) else "[count]"


class BestOfNOptions(Request):
    """How the best answer is found; None takes the server's default.

    `is_safety` None lets the server's tagger decide. `return_candidates` puts every candidate's text into `scored`.
    `progress` sends a stream an event each time a candidate has been scored. The dial: `deadline_ms` counts from the request's
    arrival; `accept_reward` is the R_c that is good enough; `early_rejection` is approximate.
    """

    candidates: (
        Annotated[
            Annotated[Count, Tag("[count]")] | Annotated[CandidateRange, Tag("[range]")], Discriminator(_count_or_range)
        ]
        | None
    ) = None
    deadline_ms: Annotated[float, Field(ge=1, le=LONGEST_DEADLINE_MS)] | None = None
    accept_reward: Annotated[float, Field(ge=0, le=1)] | None = None
    early_rejection: EarlyRejectionOptions | None = None
    is_safety: bool | None = None
    combiner: CombinerName | None = None
    return_candidates: bool | None = None
    progress: bool | None = None

    @property
    def most(self) -> int | None:
        """K, or the most it may be."""
        return self.candidates.max if isinstance(self.candidates, CandidateRange) else self.candidates

    @property
    def least(self) -> int | None:
        """The fewest candidates that will do, where a range says so."""
        return self.candidates.min if isinstance(self.candidates, CandidateRange) else None


class CompletionRequest(Request):
    """What a chat and a text completion have in common: how to sample, how many, and what to return."""

    neutral = {
        "metadata": (None, {}),
        "prompt_cache_key": (None,),
        "prompt_cache_retention": (None,),
        "safety_identifier": (None,),
        "service_tier": (None, "auto", "default"),
        "store": (None, False),
    }

    model: str
    n: Count | None = None
    best_of: Count | None = None
    best_of_n: BestOfNOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4, fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MOST_BIASES)] | None = (
        None
    )
    user: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        requested = {self.best_of, self.options.most} - {None}
        if len(requested) > 1:
            raise _invalid("best_of", "best_of and best_of_n.candidates disagree; send one of them")
        if self.stream_options is not None and not self.stream:
            raise _invalid("stream_options", "stream_options is only allowed when stream is true")
        if self.options.progress and not self.stream:
            raise _invalid("best_of_n.progress", "progress is only allowed when stream is true")
        return self

    @property
    def options(self) -> BestOfNOptions:
        """The `best_of_n` object, with its defaults if none was sent."""
        return self.best_of_n or BestOfNOptions()

    @property
    def candidates(self) -> int | None:
        """K as asked for, by either name."""
        return self.options.most or self.best_of

    @property
    def token_limit(self) -> int | None:
        """Most tokens of the answer."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to report with each token's log-probability; None reports none at all."""
        return None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none to four."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(CompletionRequest):
    """The body of `POST /v1/chat/completions`."""

    neutral = {
        **CompletionRequest.neutral,
        "audio": (None,),
        "function_call": (None, "none"),
        "functions": (None, []),
        "modalities": (None, ["text"]),
        "parallel_tool_calls": (None, True, False),
        "prediction": (None,),
        "reasoning_effort": (None, "none"),
        "response_format": (None, {"type": "text"}),
        "tool_choice": (None, "none", "auto"),
        "tools": (None, []),
        "verbosity": (None,),
        "web_search_options": (None,),
    }

    messages: Annotated[list[ChatMessage], Field(max_length=MOST_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _chat_consistent(self) -> Self:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise _invalid("max_tokens", "max_tokens and max_completion_tokens disagree; send one of them")
        if self.top_logprobs and not self.logprobs:
            raise _invalid("top_logprobs", "top_logprobs is only allowed when logprobs is true")
        return self

    @property
    def token_limit(self) -> int | None:
        """Most tokens of the answer, by either name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to report with each token's log-probability; None reports none at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class TextRequest(CompletionRequest):
    """The body of `POST /v1/completions`: a raw prompt, as text or as token ids, that the answer continues.

    A list of one text is that text. `echo` puts the prompt before the answer.
    """

    neutral = {**CompletionRequest.neutral, "suffix": (None,)}

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=1, fail_fast=True)]
        | Annotated[list[TokenId], Field(min_length=1, max_length=MOST_TOKENS, fail_fast=True)]
    )
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _text_consistent(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise _invalid("echo", "echo cannot be combined with logprobs: the prompt's are not computed")
        return self

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to report with each token's log-probability; None reports none at all."""
        return self.logprobs

    @property
    def text_or_ids(self) -> str | list[int]:
        """The prompt, a list of one text unpacked."""
        if isinstance(self.prompt, str):
            return self.prompt
        return self.prompt[0] if isinstance(self.prompt[0], str) else [int(token) for token in self.prompt]


class TokenizeRequest(Request):
    """The body of `POST /tokenize`: a text, or a dialog as the template renders it.

    `add_special_tokens` puts BOS before a text; a dialog always has its own.
    """

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(max_length=MOST_MESSAGES, fail_fast=True)] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise _invalid("prompt", "send either prompt or messages")
        return self


class DetokenizeRequest(Request):
    """The body of `POST /detokenize`."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MOST_TOKENS, fail_fast=True)]


class RewardsRequest(Request):
    """The body of `POST /v1/rewards`: score given answers to one dialog."""

    model: str
    messages: Annotated[list[ChatMessage], Field(max_length=MOST_MESSAGES, fail_fast=True)]
    answers: Annotated[list[str], Field(max_length=MOST_ANSWERS, fail_fast=True)]
    is_safety: bool | None = None


def _invalid(param: str | None, message: str) -> PydanticCustomError:
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


class TokenLogprob(Response):
    """A token, its UTF-8 bytes, and the log-probability the policy gave it, before temperature, filters and penalties."""

    token: str
    logprob: float
    bytes: list[int] | None


class SampledLogprob(TokenLogprob):
    """A sampled token and the likeliest alternatives at its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Response):
    """The log-probabilities of an answer's tokens, EOS left out."""

    content: list[SampledLogprob]
    refusal: None = None


class TextLogprobs(Response):
    """The same in the shape of text completions: parallel lists; `text_offset` counts characters into `text`."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Choice(Response):
    """A returned answer; choices are ranked, index 0 is the winner."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class TextChoice(Response):
    """A returned continuation, or a piece of it on a stream, where `finish_reason` is null but at the end."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None


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


class AbortedCandidate(Response):
    """A candidate that was given up on purpose, why, and how many tokens had been sampled by then."""

    index: int
    reason: Literal["deadline", "accept_reward", "early_rejection"]
    tokens: int


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
    """Why the winner won. `winner` is the `index` in `scored` of choice 0; `scored` lists every scored candidate.

    `candidates` is K as it was sampled, of `requested` that were asked for; `reduced_by` says why it is less. `truncated_by` says
    what ended the selection before all K had. `approximate`: candidates were given up on the score of a part of them.
    `all_unsafe`: every candidate has R_s < 0.15. `safe_passed_over`: the winner has, though another candidate has not.
    """

    candidates: int
    requested: int
    reduced_by: Literal["load", "deadline"] | None = None
    truncated_by: Literal["deadline", "accept_reward"] | None = None
    approximate: bool = False
    finished: int
    winner: int
    is_safety: bool
    combiner: CombinerName
    winner_tokens: int
    all_unsafe: bool
    safe_passed_over: bool
    scored: list[Scored]
    failed: list[Failed]
    aborted: list[AbortedCandidate] = []
    timings_ms: TimingsMs


class Progress(Response):
    """How far a selection has come; `best_so_far` is the R_c that leads, null before the first score."""

    finished: int
    scored: int
    candidates: int
    best_so_far: float | None


class ProgressReport(Response):
    """The `best_of_n` object of a chunk sent while candidates still run."""

    progress: Progress


class ChatCompletion(Response):
    """The answer to `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    best_of_n: BestOfNReport


class TextCompletion(Response):
    """The answer to `POST /v1/completions`, and one event of its stream, where `usage` and `best_of_n` come last."""

    optional = frozenset({"usage", "best_of_n"})

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    best_of_n: BestOfNReport | ProgressReport | None = None


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
    logprobs: ChatLogprobs | None = None
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
    best_of_n: BestOfNReport | ProgressReport | None = None


class Rewards(Response):
    """The answer to `POST /v1/rewards`, in the order of the request's answers."""

    object: Literal["list"] = "list"
    model: str
    rewards: list[Rating]


class Tokens(Response):
    """The answer to `POST /tokenize`."""

    optional = frozenset({"token_strs"})

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Detokenized(Response):
    """The answer to `POST /detokenize`."""

    prompt: str


class ModelCard(Response):
    """A served model; `max_model_len` is its context, prompt and answer together."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "winnow"
    max_model_len: int


class ModelList(Response):
    """The served models: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(Response):
    """The answer of `/health` and `/ready`."""

    status: Literal["ok", "ready", "draining", "dead"]


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
