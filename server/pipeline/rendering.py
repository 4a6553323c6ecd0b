"""Rendering of requests for one policy: chat template, safety classifier, and the answer's room in the context."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import PromptTooLong, RequestError, SamplingError
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import LONG_TEXT, Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.pipeline.request import Messages, RawPrompt, Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request ready for `BestOfN.select`; `sampling` is the request's, with its answer fitted to the context."""

    request: Request
    prompt: Prompt
    sampling: Sampling
    sampling_prompt: Prompt | None = None


@dataclass(frozen=True, slots=True)
class PromptRenderer:
    """Renders requests for one policy, within its `context` (tokens of prompt and answer) and its `vocabulary`."""

    tokenizer: Tokenizer
    template: ChatTemplate
    classifier: SafetyClassifier
    context: int
    vocabulary: int

    async def render(self, request: Request) -> RenderedRequest:
        """Render `request` and fit its answer to the context.

        Raises:
            RequestError: the dialog breaks the template's rules, prompt and answer do not fit the context, or a
                token id is not of this vocabulary.
        """
        if isinstance(request.prompt, RawPrompt):
            prompt = await self._raw(request.prompt.content, request.is_safety)
            return RenderedRequest(request, prompt, self._fitted(request, prompt, "prompt"))
        prompt = await self.render_dialog(request.prompt, request.is_safety, request.options.merge_turns)
        if request.sampling_dialog is None or request.sampling_dialog == request.prompt:
            return RenderedRequest(request, prompt, self._fitted(request, prompt, "messages"))
        sampling_prompt = await self.render_dialog(
            request.sampling_dialog, request.is_safety, request.options.merge_turns
        )
        longest = max(prompt, sampling_prompt, key=len)
        return RenderedRequest(request, prompt, self._fitted(request, longest, "messages"), sampling_prompt)

    async def render_dialog(
        self, dialog: Messages, is_safety: bool | None = None, merge_turns: bool | None = None
    ) -> Prompt:
        """Render a dialog; the classifier tags it if `is_safety` is None, and the template decides on merging turns.

        Raises:
            DialogError: the dialog breaks the template's rules.
            PromptTooLong: it cannot fit the context.
        """
        text = "".join(message.content for message in dialog)
        self._require_possible(text, "messages")
        template = self.template if merge_turns is None else self.template.with_merging(merge_turns)

        return await in_thread_if_long(
            lambda: self._tagged(template.render(dialog, self.tokenizer), is_safety), len(text)
        )

    async def _raw(self, content: str | tuple[int, ...], is_safety: bool | None) -> Prompt:
        if not content:
            raise RequestError("the prompt is empty; send a text or token ids", "prompt")
        if isinstance(content, str):
            self._require_possible(content, "prompt")
        else:
            self.require_tokens(content, "prompt")
            self._room(len(content), "prompt")

        return await in_thread_if_long(
            lambda: self._tagged(self.tokenizer.raw_prompt(content), is_safety), len(content)
        )

    def _tagged(self, prompt: Prompt, is_safety: bool | None) -> Prompt:
        """Return the prompt as the caller tags it, or as the classifier does if `is_safety` is None."""
        messages = prompt.messages or (Message("user", prompt.raw_text),)
        return replace(prompt, is_safety=self.classifier(messages) if is_safety is None else is_safety)

    async def encode(self, text: str) -> list[int]:
        """Return the ids of a text, tokenised in a thread if it is long."""
        return await in_thread_if_long(lambda: self.tokenizer.encode(text), len(text))

    def require_tokens(self, ids: Sequence[int], field: str) -> None:
        """Check that `ids`, from the request's `field`, are token ids of this vocabulary.

        Raises:
            RequestError: one is not.
        """
        if max(ids, default=0) >= self.vocabulary:
            raise RequestError(f"{field}: token ids are below {self.vocabulary}", field)

    def _require_possible(self, text: str, field: str) -> None:
        """Refuse a text that is too long in any tokenisation, before it is tokenised."""
        fewest = self.tokenizer.fewest_tokens(text.strip())
        if fewest > self.context:
            raise self._too_long(f"at least {fewest}", field)

    def _room(self, prompt_tokens: int, field: str) -> int:
        """Return the tokens that the context has left for an answer, at least one."""
        room = self.context - prompt_tokens
        if room < 1:
            raise self._too_long(str(prompt_tokens), field)
        return room

    def _too_long(self, tokens: str, field: str) -> PromptTooLong:
        return PromptTooLong(
            f"the prompt has {tokens} tokens; the context holds {self.context}, the answer included", field
        )

    def _fitted(self, request: Request, prompt: Prompt, field: str) -> Sampling:
        """Return the request's sampling, its answer cut to the room in the context unless the caller set a limit."""
        sampling, room = request.sampling, self._room(len(prompt), field)
        if (highest := max(sampling.logit_bias, default=0)) >= self.vocabulary:
            raise SamplingError(
                f"logit_bias: the key {highest} is not a token id; they go from 0 to {self.vocabulary - 1}",
                "logit_bias",
            )
        if request.options.max_tokens is None and sampling.min_tokens <= room:
            return replace(sampling, max_tokens=min(sampling.max_tokens, room))
        least, limit = sampling.max_tokens, request.options.max_tokens_field
        if request.options.max_tokens is None:
            least, limit = sampling.min_tokens, "min_tokens"
        if least > room:
            raise PromptTooLong(
                f"the prompt's {len(prompt)} tokens and an answer of {least} exceed the context of {self.context}",
                limit,
            )
        return sampling


async def in_thread_if_long(work: Callable[[], T], length: int) -> T:
    """Return the result of `work` on texts of that length; in a thread if it would block the event loop for long."""
    return await asyncio.to_thread(work) if length > LONG_TEXT else work()
