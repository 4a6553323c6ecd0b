"""The one checked request, for HTTP, lines of an offline run, and lines of a batch; and its rendering for the engines.

`RequestOptions` is what a caller asks for, `Defaults` what applies otherwise. `resolve` checks both against the
limits and returns a `Request`; `PromptRenderer` renders it and fits its answer to the context. Errors name the
field of the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from winnow.clients.schema import ChatRequest, CompletionRequest
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import PromptTooLong, RequestError, SamplingError
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import CombinerName, Message, Prompt
from winnow.server.pipeline.early_stopping import NEVER, EarlyRejection, EarlyStopping

LONG = 20_000
"""Characters above which a text is tokenised in a thread, so that the event loop serves others meanwhile."""

T = TypeVar("T")
Dialog = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that no template renders: a text, or token ids; not empty."""

    content: str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """A caller's wishes besides the prompt; None takes the default. Ranges are those of `winnow.clients.schema`.

    `candidates` is K, and `least` the fewest that will do under load. `candidates_field` and `max_tokens_field`
    name the wire's field in errors, where it has two names for one thing.
    """

    candidates: int | None = None
    least: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    seed: int | None = None
    alternatives: int | None = None
    combiner: CombinerName | None = None
    is_safety: bool | None = None
    deadline_ms: float | None = None
    accept_reward: float | None = None
    early_rejection: EarlyRejection | None = None
    candidates_field: str = "best_of_n.candidates"
    max_tokens_field: str = "max_tokens"

    @classmethod
    def of(cls, body: CompletionRequest) -> RequestOptions:
        """Return the options of a request body."""
        early = body.options.early_rejection
        has_new_limit = isinstance(body, ChatRequest) and body.max_completion_tokens and not body.max_tokens
        return cls(
            candidates=body.candidates,
            least=body.options.least,
            n=body.n,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            max_tokens=body.token_limit,
            stop=body.stop_strings or None,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            logit_bias=body.logit_bias or None,
            seed=body.seed,
            alternatives=body.alternatives,
            combiner=body.options.combiner,
            is_safety=body.options.is_safety,
            deadline_ms=body.options.deadline_ms,
            accept_reward=body.options.accept_reward,
            early_rejection=EarlyRejection(tuple(early.at_tokens), early.keep) if early else None,
            candidates_field="best_of" if body.best_of else "best_of_n.candidates",
            max_tokens_field="max_completion_tokens" if has_new_limit else "max_tokens",
        )


@dataclass(frozen=True, slots=True)
class Defaults:
    """What applies where a caller asks for nothing, and the most candidates that a request may have.

    `candidates` is K; `least` is how far the load may shrink it, K itself if it may not.
    """

    candidates: int
    least: int
    max_candidates: int
    temperature: float
    top_p: float
    max_tokens: int
    combiner: CombinerName


@dataclass(frozen=True, slots=True)
class Request:
    """One checked request. Only the context and the vocabulary of the served model can still refuse it.

    `candidates` is K, of which `least` will do under load; `n` are returned. `is_safety` None lets the
    classifier decide. `sampling.max_tokens` is the caller's own limit, or the default, which is cut to the
    context. `options` are the caller's, as they were. `sampling_dialog` replaces the dialog for sampling only
    (context distillation, ghost attention).
    """

    prompt: Dialog | RawPrompt
    candidates: int
    least: int
    n: int
    combiner: CombinerName
    sampling: Sampling
    options: RequestOptions
    is_safety: bool | None = None
    early_stopping: EarlyStopping = NEVER
    sampling_dialog: Dialog | None = None

    @property
    def has_options(self) -> bool:
        """Whether the caller asks for anything beyond the defaults, so that a refusal may be due to that."""
        return replace(self.options, is_safety=None) != RequestOptions()


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request ready for `BestOfN.select`."""

    request: Request
    prompt: Prompt
    sampling: Sampling
    sampling_prompt: Prompt | None = None


def resolve(prompt: Dialog | RawPrompt, options: RequestOptions, defaults: Defaults, arrived: float = 0.0) -> Request:
    """Check `options` and fill in the defaults; `arrived` is the request's arrival, an instant of `time.monotonic`.

    Raises:
        RequestError: the caller has to change something; the message says what.
    """
    candidates, n = _counts(options, defaults)
    deadline = None if options.deadline_ms is None else arrived + options.deadline_ms / 1e3
    return Request(
        prompt=prompt,
        candidates=candidates,
        least=_least(options, defaults, candidates, n),
        n=n,
        combiner=options.combiner or defaults.combiner,
        sampling=_sampling(options, defaults),
        options=options,
        is_safety=options.is_safety,
        early_stopping=EarlyStopping(deadline, options.accept_reward, options.early_rejection),
    )


def _counts(options: RequestOptions, defaults: Defaults) -> tuple[int, int]:
    """Return K and n. At temperature 0 all candidates would be equal, so K is 1 unless the caller insists."""
    greedy = (defaults.temperature if options.temperature is None else options.temperature) == 0
    n = options.n or 1
    candidates = options.candidates or (1 if greedy else defaults.candidates)
    if candidates > defaults.max_candidates:
        raise RequestError(
            f"{candidates} candidates asked for; the limit here is {defaults.max_candidates}", options.candidates_field
        )
    if greedy and max(candidates, n) > 1:
        raise SamplingError(
            f"at temperature 0 all {max(candidates, n)} candidates would be the same answer; raise temperature, "
            "or ask for 1",
            "temperature",
        )
    if n > candidates:
        raise RequestError(
            f"n ({n}) answers cannot be returned from {candidates} candidates; raise {options.candidates_field}", "n"
        )
    return candidates, n


def _least(options: RequestOptions, defaults: Defaults, candidates: int, n: int) -> int:
    """Return how far K may shrink under load: as the caller says, else as the default does; never below n."""
    may_shrink = defaults.least < defaults.candidates
    least = options.least or (defaults.least if may_shrink else candidates)
    return max(n, min(least, candidates))


def _sampling(options: RequestOptions, defaults: Defaults) -> Sampling:
    return Sampling(
        max_tokens=options.max_tokens or defaults.max_tokens,
        temperature=defaults.temperature if options.temperature is None else options.temperature,
        top_p=options.top_p or defaults.top_p,
        top_k=max(0, options.top_k or 0),
        min_p=options.min_p or 0.0,
        stop=options.stop or (),
        presence_penalty=options.presence_penalty or 0.0,
        frequency_penalty=options.frequency_penalty or 0.0,
        logit_bias=token_biases(options.logit_bias or {}),
        seed=options.seed,
        alternatives=options.alternatives,
    )


def token_biases(given: Mapping[str, float]) -> dict[int, float]:
    """Return the wire's `logit_bias`, whose keys are texts, by token id.

    Raises:
        SamplingError: a key is not a token id.
    """
    if not all(token.isascii() and token.isdecimal() and len(token) < 10 for token in given):
        raise SamplingError("logit_bias: keys are token ids", "logit_bias")
    return {int(token): bias for token, bias in given.items()}


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
                token id is
                not of this vocabulary.
        """
        if isinstance(request.prompt, RawPrompt):
            prompt = await self._raw(request.prompt.content, request.is_safety)
            return RenderedRequest(request, prompt, self._fitted(request, prompt, "prompt"))
        prompt = await self.render_dialog(request.prompt, request.is_safety)
        if request.sampling_dialog is None or request.sampling_dialog == request.prompt:
            return RenderedRequest(request, prompt, self._fitted(request, prompt, "messages"))
        sampling_prompt = await self.render_dialog(request.sampling_dialog, request.is_safety)
        longest = max(prompt, sampling_prompt, key=len)
        return RenderedRequest(request, prompt, self._fitted(request, longest, "messages"), sampling_prompt)

    async def render_dialog(self, dialog: Dialog, is_safety: bool | None = None) -> Prompt:
        """Render a dialog; the classifier tags it if `is_safety` is None.

        Raises:
            DialogError: the dialog breaks the template's rules.
            PromptTooLong: it cannot fit the context.
        """
        text = "".join(message.content for message in dialog)
        self._require_possible(text, "messages")

        def render() -> Prompt:
            tagged = self.classifier(dialog) if is_safety is None else is_safety
            return self.template.render(dialog, self.tokenizer, is_safety=tagged)

        return await _in_thread_if_long(render, len(text))

    async def _raw(self, content: str | tuple[int, ...], is_safety: bool | None) -> Prompt:
        if not content:
            raise RequestError("the prompt is empty; send a text or token ids", "prompt")
        if isinstance(content, str):
            self._require_possible(content, "prompt")
        else:
            self.require_tokens(content, "prompt")
            self._room(len(content), "prompt")

        def render() -> Prompt:
            prompt = self.tokenizer.raw_prompt(content, is_safety=bool(is_safety))
            tagged = self.classifier([Message("user", prompt.raw_text)]) if is_safety is None else is_safety
            return replace(prompt, is_safety=tagged)

        return await _in_thread_if_long(render, len(content))

    async def encode(self, text: str) -> list[int]:
        """Return the ids of a text, tokenised in a thread if it is long."""
        return await _in_thread_if_long(lambda: self.tokenizer.encode(text), len(text))

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
        if max(sampling.logit_bias, default=0) >= self.vocabulary:
            raise SamplingError(f"logit_bias: keys are token ids from 0 to {self.vocabulary - 1}", "logit_bias")
        if request.options.max_tokens is None:
            return replace(sampling, max_tokens=min(sampling.max_tokens, room))
        if sampling.max_tokens > room:
            raise PromptTooLong(
                f"the prompt's {len(prompt)} tokens and an answer of {sampling.max_tokens} exceed the context of "
                f"{self.context}",
                request.options.max_tokens_field,
            )
        return sampling


async def _in_thread_if_long(work: Callable[[], T], length: int) -> T:
    """Return what `work` on a text of that length returns; in a thread if it would block the event loop for long."""
    return await asyncio.to_thread(work) if length > LONG else work()
