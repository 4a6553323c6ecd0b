"""The response bodies of all endpoints: whole answers, chunks of a stream, and errors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from winnow.clients.schema.base import CombinerName, FinishReason, Response
from winnow.clients.schema.best_of_n import BestOfNReport, ProgressReport, Rating


class AnswerMessage(Response):
    """An answer; `refusal` is always null, and present because OpenAI's schema requires it."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class TokenLogprob(Response):
    """A token, its UTF-8 bytes, and its log-probability under the policy before temperature, filters and penalties."""

    token: str
    logprob: float
    bytes: list[int] | None


class SampledLogprob(TokenLogprob):
    """A sampled token and the most likely alternatives at its position."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Response):
    """Log-probabilities of an answer's tokens, without EOS."""

    content: list[SampledLogprob]
    refusal: None = None


class TextLogprobs(Response):
    """Log-probabilities in the format of text completions, as parallel lists; `text_offset` counts characters."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Choice(Response):
    """A returned answer; choices are ranked, and index 0 is the winner."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class TextChoice(Response):
    """A returned continuation, or on a stream a piece of it; there `finish_reason` is null except at the end."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None


class CompletionTokensDetails(Response):
    """The parts of `completion_tokens`: those of the winner, and those of all other candidates that it counts."""

    winner_tokens: int
    other_tokens: int


class Usage(Response):
    """Token counts; `completion_tokens` counts all K candidates, returned or not, unless the request says otherwise."""

    optional = frozenset({"completion_tokens_details"})

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: CompletionTokensDetails | None = None


class ChatCompletion(Response):
    """Response of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    best_of_n: BestOfNReport


class TextCompletion(Response):
    """Response of `POST /v1/completions`, and one event of its stream, where `usage` and `best_of_n` come last."""

    optional = frozenset({"usage", "best_of_n"})

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    best_of_n: BestOfNReport | ProgressReport | None = None


class Delta(Response):
    """The part that a chunk adds to the message of a choice."""

    optional = frozenset({"role", "content", "refusal"})

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None


class ChunkChoice(Response):
    """One choice in a chunk."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Response):
    """One event of a chat completion's stream."""

    optional = frozenset({"usage", "best_of_n"})

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    best_of_n: BestOfNReport | ProgressReport | None = None


class Rewards(Response):
    """Response of `POST /v1/rewards`, in the order of the request's answers."""

    object: Literal["list"] = "list"
    model: str
    rewards: list[Rating]


class Tokens(Response):
    """Response of `POST /tokenize`."""

    optional = frozenset({"token_strs"})

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Detokenized(Response):
    """Response of `POST /detokenize`."""

    prompt: str


class ModelCard(Response):
    """A served model; `max_model_len` is its context length, prompt and answer together.

    `chat_template` is `llama2`, `tokenizer` (the model's own) or the name of a file on the server.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "winnow"
    max_model_len: int
    chat_template: str = "llama2"


class ModelList(Response):
    """The served models; there is exactly one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(Response):
    """Response of `/health` and `/ready`."""

    status: Literal["ok", "ready", "draining", "dead", "unavailable"]


class Unavailable(Status):
    """Response of `/ready` while models on other servers cannot be used: why not, by name."""

    unavailable: dict[str, str]


class Degraded(Status):
    """Response of `/ready` while some, not all, of a model's servers cannot be used: how many and why, by name."""

    degraded: dict[str, str]


class Gpu(Response):
    """The GPU that the engines share: its memory, and whether MPS lets their kernels overlap (null: unknown)."""

    name: str
    memory_gib: float
    mps: bool | None


class ServedBy(Response):
    """The server of a model: the engine's kind, the model's name and card, and the addresses of other servers."""

    kind: str
    model: str
    address: str | None = None
    card: str | None = None


class CalibratedOn(Response):
    """The origin of a reward model's scale and bias: found on `n` rows of `data`, on `date` (ISO 8601, null: not told).

    `precision` and `recall` are those of the gate, R_s < 0.15, on other rows; null where they were not measured.
    """

    data: str
    n: int
    date: str | None = None
    precision: float | None = None
    recall: float | None = None


class Adaptive(Response):
    """Waves: `start` candidates, then `step` at a time, until R_c reaches `reward` or one is expected to gain less."""

    start: int
    step: int
    reward: float | None = None
    gain: float | None = None


class Gains(Response):
    """A table of expected gains: its digest, the number of prompts it was learnt from, and its date (ISO 8601)."""

    digest: str
    prompts: int
    date: str | None = None


class Deleted(Response):
    """Response of `DELETE /v1/chat/completions/{id}`."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: bool = True


class Recording(Response):
    """The recording of answers: which ones, where, and how it goes.

    `fault` is the reason why the store takes nothing now, null while it does. `written` answers were recorded and
    `dropped` ones were not, by the reason, since the server's start.
    """

    record: Literal["off", "opt_in", "all"]
    store: Literal["sqlite", "postgresql"]
    retention_days: float
    fault: str | None
    written: int
    dropped: dict[str, int]


class Version(Response):
    """Response of `/version`: versions of the server and its engine, and the GPU, null on CPU.

    `combiner` is that of requests that name none; with `empty_last` answers without text rank last. `calibrated` says
    of each reward model whether 0.15 means something on its scale, `calibration` how that was found (null: not told),
    and `reward_models` what serves it, as `policy` does of a policy on other servers (null: it runs here). `adaptive`
    is the default of requests that name none (null: all K at once), `gains` the table by which they may stop. Servers
    before 0.2 send none of them. `recording` is null without a store.
    """

    version: str
    engine: str
    gpu: Gpu | None = None
    combiner: CombinerName = "llama2"
    empty_last: bool = True
    calibrated: dict[str, bool] = Field(default_factory=dict)
    calibration: dict[str, CalibratedOn | None] = Field(default_factory=dict)
    reward_models: dict[str, ServedBy] = Field(default_factory=dict)
    policy: ServedBy | None = None
    adaptive: Adaptive | None = None
    gains: Gains | None = None
    recording: Recording | None = None


class CallerInfo(Response):
    """Response of `/v1/caller`: the name and the roles of a request's API key; without keys everyone has all roles."""

    name: str
    roles: list[Literal["use", "annotate", "operate"]]


class ErrorDetail(Response):
    """An error's message, type, field (`param`) and machine-readable `code`; the last two may be null."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Response):
    """Body of every error response."""

    error: ErrorDetail
