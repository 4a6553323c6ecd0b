"""The request bodies of all endpoints.

Requests are strict: a field that the server would not honour is rejected by name, unless it has a value that asks for
nothing. docs/api.md documents every field.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from winnow.clients.schema.base import INTEGRAL, CombinerName, Neutral, Request, integral, invalid
from winnow.clients.schema.best_of_n import BestOfNOptions, Count
from winnow.clients.schema.compatibility import CHAT, MESSAGE, TEXT, TOKENIZE

StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
MAX_MESSAGES = 1000
MAX_PARTS = 64
MAX_BIASES = 1024
MAX_ANSWERS = 1024
MAX_PROMPT_TOKENS = 100_000
UNSEEDED = -1
"""The seed by which some clients say that they want none."""
NoEffect = dict[str, Any] | None
"""An object that is accepted and not used."""


class TextPart(Request):
    """Part of a message's content; only text is supported. Hints for caches are accepted and not used."""

    type: Literal["text"]
    text: str
    cache_control: NoEffect = None
    prompt_cache_breakpoint: NoEffect = None


class ChatMessage(Request):
    """One message of a dialog; `developer` is a synonym of `system`, text parts are concatenated.

    Fields that are null in an answer of ours or of OpenAI's are ignored, so that an answer can be sent back unchanged.
    `name` and `cache_control` are accepted and not used: the chat format has no place for a name.
    """

    neutral: ClassVar[Neutral] = MESSAGE

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS)]
    name: str | None = None
    cache_control: NoEffect = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_tools(cls, body: Any) -> Any:
        if isinstance(body, dict) and body.get("role") in ("tool", "function"):
            raise PydanticCustomError("unsupported", "not supported", {"param": "role", "value": body["role"]})
        return body

    @property
    def text(self) -> str:
        """Content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


_Bias = Annotated[float, Field(ge=-100, le=100)]
_TOKEN_ID_KEYS = {"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
Biases = Annotated[dict[str, _Bias], Field(max_length=MAX_BIASES, json_schema_extra=_TOKEN_ID_KEYS)]
"""Biases by token id; `pipeline.request.token_biases` checks the keys, and names a wrong one."""
Dialog = Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra={"minItems": 1})]
"""Messages; the template refuses an empty list, with the code of dialogs."""


class StreamOptions(Request):
    """Extra content of a stream: usage in a chunk at the end, or in every chunk (vLLM's `continuous_usage_stats`).

    Obfuscation is accepted and not done.
    """

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    include_obfuscation: bool | None = None


class WithoutEffect(Request):
    """Fields of OpenAI's and vLLM's that cannot change an answer here.

    Some are about the service (caches, billing, tracing), some about abilities that the model does not have: accepted,
    and neither used nor stored. `store`, `user` and `safety_identifier` decide whether a chat answer is recorded, and
    whose it is.
    """

    metadata: NoEffect = None
    parallel_tool_calls: bool | None = None
    prediction: NoEffect = None
    prompt_cache_key: str | None = None
    prompt_cache_options: NoEffect = None
    prompt_cache_retention: str | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    request_id: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    session_id: str | None = None
    store: bool | None = None
    user: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class CompletionRequest(WithoutEffect):
    """Fields common to chat and text completions: sampling, K, and what to return."""

    model: str
    n: Count | None = None
    best_of: Count | None = None
    best_of_n: BestOfNOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1), INTEGRAL] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Count | None = None
    min_tokens: Annotated[int, Field(ge=0), INTEGRAL] | None = None
    ignore_eos: bool | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4, fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=UNSEEDED, lt=2**63), INTEGRAL] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Biases | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        requested = {self.best_of, self.options.most} - {None}
        if len(requested) > 1:
            raise invalid("best_of", "best_of and best_of_n.candidates disagree; send one of them")
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "stream_options is only allowed when stream is true")
        if self.options.progress and not self.stream:
            raise invalid("best_of_n.progress", "progress is only allowed when stream is true")
        return self

    @property
    def options(self) -> BestOfNOptions:
        """The `best_of_n` object; one with all defaults if none was sent."""
        return self.best_of_n or BestOfNOptions()

    @property
    def candidates(self) -> int | None:
        """K under either name; None if the request has neither."""
        return self.options.most or self.best_of

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens of an answer; None takes the server's default."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives per token in the log-probabilities; None for no log-probabilities at all."""
        return None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Stop strings, zero to four."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(CompletionRequest):
    """Body of `POST /v1/chat/completions`."""

    neutral: ClassVar[Neutral] = CHAT

    messages: Dialog
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), INTEGRAL] | None = None

    @model_validator(mode="after")
    def _chat_consistent(self) -> Self:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise invalid("max_tokens", "max_tokens and max_completion_tokens disagree; send one of them")
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "top_logprobs is only allowed when logprobs is true")
        return self

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens of an answer, under either name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives per token in the log-probabilities; None for no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


_Text = Annotated[str, Field(json_schema_extra={"minLength": 1})]
_TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_PROMPT_TOKENS, fail_fast=True)]
_PromptInput = (
    _Text
    | _TokenIds
    | Annotated[list[_Text], Field(min_length=1, max_length=1)]
    | Annotated[list[_TokenIds], Field(min_length=1, max_length=1)]
)


def _one_prompt(value: Any) -> Any:
    """Return the prompt itself where it stands in a list of one."""
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > 1:
            raise invalid(None, "prompt: one prompt a request; send a request for each")
        value = value[0]
    return integral(value)


class TextRequest(CompletionRequest):
    """Body of `POST /v1/completions`: a raw prompt, as text or token ids, for the answer to continue.

    A list of one prompt counts as that prompt. `echo` puts the prompt before the answer.
    """

    neutral: ClassVar[Neutral] = TEXT

    prompt: Annotated[_Text | _TokenIds, BeforeValidator(_one_prompt, json_schema_input_type=_PromptInput)]
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=20), INTEGRAL] | None = None

    @model_validator(mode="after")
    def _text_consistent(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise invalid(
                "echo",
                "echo cannot be combined with logprobs: the log-probabilities of a prompt are not computed here, "
                "so that tasks which compare them (loglikelihood) cannot run; leave one of the two out",
            )
        return self

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives per token in the log-probabilities; None for no log-probabilities at all."""
        return self.logprobs


class TokenizeRequest(Request):
    """Body of `POST /tokenize`: a text, or a dialog to be rendered by the template.

    `add_special_tokens` puts BOS before a text; a dialog always has its own special tokens.
    """

    neutral: ClassVar[Neutral] = TOKENIZE
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
            ]
        }
    )

    model: str | None = None
    prompt: str | None = None
    messages: Dialog | None = None
    merge_turns: bool | None = None
    add_special_tokens: bool | None = True
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise invalid("prompt", "send either prompt or messages")
        return self


class DetokenizeRequest(Request):
    """Body of `POST /detokenize`."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_PROMPT_TOKENS, fail_fast=True), INTEGRAL]


class RewardsRequest(Request):
    """Body of `POST /v1/rewards`: answers to one dialog, to be scored and ranked."""

    model: str
    messages: Dialog
    answers: Annotated[list[str], Field(max_length=MAX_ANSWERS, fail_fast=True)]
    is_safety: bool | None = None
    combiner: CombinerName | None = None
    merge_turns: bool | None = None
