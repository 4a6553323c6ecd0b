"""The request bodies of all endpoints.

Requests are strict: a field that the server would not honour is rejected by name, unless it has a value that asks for
nothing. docs/api.md documents every field.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from winnow.clients.schema.base import Neutral, Request, invalid
from winnow.clients.schema.best_of_n import BestOfNOptions, Count

StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
MAX_MESSAGES = 1000
MAX_PARTS = 64
MAX_BIASES = 1024
MAX_ANSWERS = 1024
MAX_PROMPT_TOKENS = 100_000


class TextPart(Request):
    """Part of a message's content; only text is supported."""

    type: Literal["text"]
    text: str


class ChatMessage(Request):
    """One message of a dialog; `developer` is a synonym of `system`, text parts are concatenated.

    Fields that are null in an answer of ours or of OpenAI's are ignored, so that an answer can be sent back unchanged.
    """

    neutral: ClassVar[Neutral] = {
        "annotations": (None, []),
        "audio": (None,),
        "function_call": (None,),
        "name": (None,),
        "refusal": (None,),
        "tool_calls": (None, []),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]

    @property
    def text(self) -> str:
        """Content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


Dialog = Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra={"minItems": 1})]
"""Messages; the template refuses an empty list, with the code of dialogs."""


class StreamOptions(Request):
    """Extra content of a stream."""

    neutral: ClassVar[Neutral] = {"include_obfuscation": (None, False)}

    include_usage: bool | None = False


class CompletionRequest(Request):
    """Fields common to chat and text completions: sampling, K, and what to return."""

    neutral: ClassVar[Neutral] = {
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
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES)] | None = (
        None
    )
    user: str | None = None
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

    neutral: ClassVar[Neutral] = {
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

    messages: Dialog
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

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


class TextRequest(CompletionRequest):
    """Body of `POST /v1/completions`: a raw prompt, as text or token ids, for the answer to continue.

    A list of one text counts as that text. `echo` puts the prompt before the answer.
    """

    neutral: ClassVar[Neutral] = {**CompletionRequest.neutral, "suffix": (None,)}

    prompt: (
        Annotated[str, Field(json_schema_extra={"minLength": 1})]
        | Annotated[list[str], Field(min_length=1, max_length=1, fail_fast=True)]
        | Annotated[list[TokenId], Field(min_length=1, max_length=MAX_PROMPT_TOKENS, fail_fast=True)]
    )
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _text_consistent(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise invalid("echo", "echo cannot be combined with logprobs: the prompt's are not computed")
        return self

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives per token in the log-probabilities; None for no log-probabilities at all."""
        return self.logprobs

    @property
    def text_or_ids(self) -> str | list[int]:
        """The prompt; a list of one text is unpacked."""
        if isinstance(self.prompt, str):
            return self.prompt
        return self.prompt[0] if isinstance(self.prompt[0], str) else [int(token) for token in self.prompt]


class TokenizeRequest(Request):
    """Body of `POST /tokenize`: a text, or a dialog to be rendered by the template.

    `add_special_tokens` puts BOS before a text; a dialog always has its own special tokens.
    """

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
    add_special_tokens: bool = True
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise invalid("prompt", "send either prompt or messages")
        return self


class DetokenizeRequest(Request):
    """Body of `POST /detokenize`."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_PROMPT_TOKENS, fail_fast=True)]


class RewardsRequest(Request):
    """Body of `POST /v1/rewards`: answers to one dialog, to be scored."""

    model: str
    messages: Dialog
    answers: Annotated[list[str], Field(max_length=MAX_ANSWERS, fail_fast=True)]
    is_safety: bool | None = None
