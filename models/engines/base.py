"""Engines, independent of their kind: start options, status, and the tokens that a reward model reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import CandidateFailed, DialogError
from winnow.models.policy import Policy
from winnow.models.reward_model import RewardModel
from winnow.models.tokenizer import LONG_TEXT, Tokenizer
from winnow.models.types import Message, Prompt

EngineKind = Literal["vllm", "transformers", "classify", "judge", "completions", "chat"]
"""The kind of program that runs a model; see `winnow.models.engines.registry`."""
Execution = Literal["eager", "graphs", "compiled"]
"""An engine's way to run a step: operator by operator; decoding steps as CUDA graphs, nothing compiled; or compiled,
with CUDA graphs on a GPU."""
CACHED_PROMPTS = 256
"""Prompts that a reward model with a template of its own keeps rendered."""
LONG_REREAD = 2000
"""Characters of a prompt that is tokenised anew with each answer, above which a thread does it: 0.7 ms there."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Start options of one engine, called `name` in errors and request ids.

    `context` None takes the checkpoint's own. `memory_share` is the share of a GPU's memory; on CPU it
    has no effect, and `kv_cache` (bytes) must be given. On a GPU the KV cache is what the share leaves,
    if `kv_cache` is None. `load_format` is vLLM's. `fork` is whether the engine may be forked; see
    `winnow.models.engines.environment.may_fork`.
    """

    name: str
    checkpoint: str
    dtype: str
    context: int | None
    kv_cache: int | None
    memory_share: float | None
    max_sequences: int
    execution: Execution
    load_format: str
    on_gpu: bool
    fork: bool
    tensor_parallel: int = 1
    """Cards that the engine is spread over."""


class AnswerReader(Protocol):
    """A reward model's view of a prompt and an answer: token ids, up to the one that the score is read at."""

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Return the ids.

        Raises:
            CandidateFailed: the model's template does not render the conversation.
        """
        ...

    def shortened(self, prompt: Prompt, answer: str, context: int) -> list[int] | None:
        """Return at most `context` ids of a conversation that has more, the answer whole; None if that is not to be."""
        ...

    def reread(self, prompt: Prompt) -> int:
        """Return the characters of the prompt that are tokenised again with each answer."""
        ...


@runtime_checkable
class PromptReader(Protocol):
    """A reward model's view of a prompt alone, for a model that judges prompts as well as answers."""

    def prompt_ids(self, prompt: Prompt, context: int) -> list[int]:
        """Return at most `context` ids, up to the one that the verdict is read at.

        Raises:
            CandidateFailed: the model's template does not render the prompt, or it is too long.
        """
        ...


async def fitting_ids(reader: AnswerReader, prompt: Prompt, answer: str, context: int, name: str) -> list[int]:
    """Return what `reader` makes of an answer, at most `context` ids; a long text is tokenised in a thread.

    Raises:
        CandidateFailed: it does not fit the context of the model `name`, or cannot be rendered.
    """
    if len(answer) > LONG_TEXT or reader.reread(prompt) > LONG_REREAD:
        return await asyncio.to_thread(_fitting_ids, reader, prompt, answer, context, name)
    return _fitting_ids(reader, prompt, answer, context, name)


def _fitting_ids(reader: AnswerReader, prompt: Prompt, answer: str, context: int, name: str) -> list[int]:
    ids = reader.token_ids(prompt, answer)
    if len(ids) <= context:
        return ids
    if shortened := reader.shortened(prompt, answer, context):
        return shortened
    raise CandidateFailed(f"the answer does not fit the {name} model's context of {context} tokens")


class RewardInput:
    """Renders a prompt and an answer in the chat template's format; the score is taken at the closing EOS.

    With `shares_policy_ids`, tokenizer and template equal the policy's: the prompt's ids are used as
    they are, so that every answer of a prompt hits the same prefix cache. Otherwise the model's own
    template renders the prompt's messages, once for all answers. `reads_end` False leaves EOS out, for a model whose
    score is read before it.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, shares_policy_ids: bool = True, *, reads_end: bool = True
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.shares_policy_ids = shares_policy_ids
        self._end = [tokenizer.eos_id] if reads_end else []
        self._rendered = lru_cache(CACHED_PROMPTS)(self._render)

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Return the ids of `prompt` and `answer`, and EOS."""
        own = prompt if self.shares_policy_ids else self._rendered(prompt)
        return [*own.token_ids, *self.tokenizer.encode_answer(own, answer), *self._end]

    def shortened(self, prompt: Prompt, answer: str, context: int) -> None:
        """Return None: the prompt's ids are given whole."""

    def reread(self, prompt: Prompt) -> int:
        """Return 0: the prompt's ids are kept."""
        return 0

    def _render(self, prompt: Prompt) -> Prompt:
        if prompt.is_raw:
            return self.tokenizer.raw_prompt(prompt.raw_text)
        template = self.template.with_tags("neutralise").with_merging(True)
        try:
            return template.render(_turns(prompt.messages), self.tokenizer)
        except DialogError as error:
            raise CandidateFailed(str(error)) from None


def _turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a dialog that every chat template renders once turns are merged: the policy's may have allowed others.

    A system message may only stand first, and what an assistant said before any user is told as a user's.
    """
    first = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages))
    opening = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    return tuple(
        Message("user", message.content)
        if (message.role == "system" and index > opening) or (message.role == "assistant" and index < first)
        else message
        for index, message in enumerate(messages)
    )


@runtime_checkable
class MayBeDown(Protocol):
    """An engine on another machine, which may not answer for a while, and then again."""

    @property
    def outage(self) -> str | None:
        """The reason why it cannot be used for now; None while it can."""
        ...


class EngineStatus(Protocol):
    """The status of a running engine, as the lifecycle and the metrics read it."""

    @property
    def context(self) -> int:
        """Most tokens of a request, answer included."""
        ...

    @property
    def dtype(self) -> str:
        """The precision it computes in."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether the engine's process runs."""
        ...

    @property
    def unfinished(self) -> int:
        """The number of requests that the engine has not finished."""
        ...

    async def is_stuck(self, seconds: float) -> bool:
        """Whether requests are pending and the engine has not responded for `seconds`."""
        ...

    def shutdown(self) -> None:
        """End the engine's process and wait for it."""
        ...


class ServedPolicy(Policy, EngineStatus, Protocol):
    """A policy whose engine runs."""


class ServedRewardModel(RewardModel, EngineStatus, Protocol):
    """A reward model whose engine runs."""

    async def verdict(self, prompt: Prompt) -> float:
        """Return the raw logit of the prompt alone; for a model with two label tokens, see `GuardModel.verdict`."""
        ...

    async def forget_prefixes(self) -> None:
        """Drop cached prefixes, so that the next score is computed whole. Nothing may be in flight."""
        ...

    async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
        """Return the probability that the next token is a label of the model's; None if it has no two labels.

        Raises:
            CandidateFailed, EngineDead: see `RewardModel.score`.
        """
        ...


class PlainScorer:
    """The answers of a served reward model that has neither label tokens nor a prefix cache."""

    async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
        """Return None: it has no label tokens."""
        return None

    async def verdict(self, prompt: Prompt) -> float:
        """Refuse: without label tokens it has no verdict on a prompt alone.

        Raises:
            CandidateFailed: always; `winnow.server.classifiers` refuses such a guard at the start.
        """
        raise CandidateFailed("a model without label tokens judges no prompts")

    async def forget_prefixes(self) -> None:
        """Do nothing: each score is computed whole."""
