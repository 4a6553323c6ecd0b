"""Rendering of requests for one policy: chat template, tag of safety prompts, and the answer's room in the context."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.engines.base import AnswerReader
from winnow.models.errors import CandidateFailed, PromptTooLong, RequestError, SamplingError
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import LONG_TEXT, Tokenizer
from winnow.models.types import Prompt
from winnow.server.pipeline.request import Messages, RawPrompt, Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request ready for `BestOfN.select`; `sampling` is the request's, with its answer fitted to the context.

    `classifier` tags the prompt if the caller has not: it is asked while the candidates are sampled.
    """

    request: Request
    prompt: Prompt
    sampling: Sampling
    sampling_prompt: Prompt | None = None
    classifier: SafetyClassifier | None = None


@dataclass(frozen=True, slots=True)
class ScorerLimit:
    """The reward model `name`, which reads a conversation in tokens of its own, at most `context` of them."""

    name: str
    reader: AnswerReader
    context: int

    def require(self, prompt: Prompt, answer: str, field: str) -> None:
        """Check that the model can score `answer`; a field of the request is at fault otherwise.

        Raises:
            PromptTooLong: its context does not hold both, and it is given no part of a conversation.
            RequestError: its template does not render the conversation.
        """
        try:
            tokens = len(self.reader.token_ids(prompt, answer))
        except CandidateFailed as error:
            raise RequestError(f"the {self.name} model cannot read this: {error}", field) from None
        if tokens > self.context and not self.reader.shortened(prompt, answer, self.context):
            raise PromptTooLong(
                f"{field}: {tokens} tokens for the {self.name} model, whose context holds {self.context}, the answer "
                "included",
                field,
            )


@dataclass(frozen=True, slots=True)
class PromptRenderer:
    """Renders requests for one policy, within its `context` (tokens of prompt and answer) and its `vocabulary`.

    `scorers` are the reward models that read a conversation in other tokens than the policy's.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    classifier: SafetyClassifier
    context: int
    vocabulary: int
    scorers: tuple[ScorerLimit, ...] = ()
    takes_messages_only: bool = False
    """The policy is a chat endpoint: it is sent messages, and returns texts."""

    async def render(self, request: Request) -> RenderedRequest:
        """Render `request` and fit its answer to the context.

        Raises:
            RequestError: the dialog breaks the template's rules, prompt and answer do not fit the context, a reward
                model cannot read the prompt, or a token id is not of this vocabulary.
        """
        if self.takes_messages_only:
            _require_plain_chat(request)
        merge_turns, sampling_prompt = request.options.merge_turns, None
        if isinstance(request.prompt, RawPrompt):
            field = "prompt"
            prompt = await self._raw(request.prompt.content)
        else:
            field = "messages"
            prompt = await self.render_dialog(request.prompt, merge_turns)
            if request.sampling_dialog not in (None, request.prompt):
                assert request.sampling_dialog
                sampling_prompt = await self.render_dialog(request.sampling_dialog, merge_turns)
        sampling = self._fitted(request, max(prompt, sampling_prompt or prompt, key=len), field)
        stock = self.classifier.stock_answers if request.is_safety is None else ()
        await self.require_scorable(prompt, field, ("", *stock))
        prompt, classifier = self.tagging(prompt, request.is_safety, field)
        return RenderedRequest(request, prompt, sampling, sampling_prompt, classifier)

    def tagging(self, prompt: Prompt, is_safety: bool | None, field: str) -> tuple[Prompt, SafetyClassifier | None]:
        """Return the prompt as the caller tags it; or the prompt and the classifier to ask if `is_safety` is None.

        Raises:
            PromptTooLong: the context has no room for the answers that the classifier scores behind the prompt.
        """
        if is_safety is not None:
            return replace(prompt, is_safety=is_safety), None
        tokens = (len(self.tokenizer.encode_answer(prompt, text)) for text in self.classifier.stock_answers)
        needed = max(tokens, default=0)
        if len(prompt) > self.context:
            raise self._too_long(str(len(prompt)), field)
        if len(prompt) + needed > self.context:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; to tell whether it is a safety prompt takes {needed} more, and "
                f"the context holds {self.context}. Shorten it, or send is_safety",
                field,
            )
        return prompt, self.classifier

    async def require_scorable(self, prompt: Prompt, field: str, answers: Sequence[str] = ("",)) -> None:
        """Check that each reward model can read the prompt with each answer, of the request's `field`.

        Raises:
            RequestError: one cannot; see `ScorerLimit.require`.
        """
        if not self.scorers:
            return

        def require() -> None:
            for scorer in self.scorers:
                for answer in answers:
                    scorer.require(prompt, answer, field)

        length = sum(len(message.content) for message in prompt.messages) + len(prompt.raw_text)
        await in_thread_if_long(require, length * len(answers) + sum(map(len, answers)))

    async def render_dialog(self, dialog: Messages, merge_turns: bool | None = None) -> Prompt:
        """Render a dialog; the template decides on merging turns if `merge_turns` is None.

        Raises:
            DialogError: the dialog breaks the template's rules.
            PromptTooLong: it cannot fit the context.
        """
        text = "".join(message.content for message in dialog)
        self._require_possible(text, "messages")
        template = self.template if merge_turns is None else self.template.with_merging(merge_turns)

        return await in_thread_if_long(lambda: template.render(dialog, self.tokenizer), len(text))

    async def _raw(self, content: str | tuple[int, ...]) -> Prompt:
        if not content:
            raise RequestError("the prompt is empty; send a text or token ids", "prompt")
        if isinstance(content, str):
            self._require_possible(content, "prompt")
        else:
            self.require_tokens(content, "prompt")
            self._room(len(content), "prompt")

        return await in_thread_if_long(lambda: self.tokenizer.raw_prompt(content), len(content))

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


def _require_plain_chat(request: Request) -> None:
    """Check that a chat endpoint can answer a request.

    Raises:
        RequestError: it needs token ids, or unfinished answers.
    """
    asked = {
        "prompt": isinstance(request.prompt, RawPrompt),
        "logprobs": request.sampling.alternatives is not None,
        "best_of_n.early_rejection": request.early_stopping.early_rejection is not None,
    }
    for field, is_asked in asked.items():
        if is_asked:
            raise RequestError(f"{field}: the policy of this server is a chat endpoint, which does not offer it", field)


async def in_thread_if_long(work: Callable[[], T], length: int) -> T:
    """Return the result of `work` on texts of that length; in a thread if it would block the event loop for long."""
    return await asyncio.to_thread(work) if length > LONG_TEXT else work()
