"""The two ways to have candidates sampled and scored: engines in this process, or a running Winnow. One callable each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

from winnow.clients import AsyncClient
from winnow.clients.answers import Answer
from winnow.clients.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    NoScoredCandidate,
    Overloaded,
    RefusedByServer,
    WinnowClientError,
)
from winnow.clients.schema import Failed, Rating, Scored
from winnow.models.errors import NoScoredCandidate as NothingScored
from winnow.models.errors import PromptTooLong, RequestError, RunError
from winnow.models.types import Branch, Candidate, Failure, FinishReason, Message, Prompt, Reward, ScoredCandidate
from winnow.server.distill.gathered import SECONDS, Gathered
from winnow.server.distill.plans import Draw, Drawn
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.service import Service

T = TypeVar("T")
Way = Callable[[Draw], Coroutine[None, None, Drawn]]
"""Samples and scores one draw.

Raises:
    RequestError: the draw itself is at fault.
    EngineDead, RunError: nothing can be had any more.
"""

BUSY_SECONDS = 5.0


class InProcess:
    """The pipeline over engines of our own, at their full throughput."""

    def __init__(self, service: Service, gather_seconds: float = SECONDS) -> None:
        self._service = service
        safety = Gathered(service.safety, seconds=gather_seconds)
        helpfulness = Gathered(service.helpfulness, seconds=gather_seconds)
        self._pipeline = BestOfN(service.policy, safety, helpfulness, is_sparing=True)

    async def __call__(self, draw: Draw) -> Drawn:
        """Sample and score; see `Way`."""
        judged = self._render(draw.messages, draw.is_safety)
        behind = judged if draw.behind == draw.messages else self._render(draw.behind, draw.is_safety)
        room = self._service.context - max(len(judged), len(behind))
        if room < (draw.sampling.max_tokens if draw.is_limit_own else 1):
            raise PromptTooLong(
                f"the prompt has {len(judged)} tokens ({len(behind)} while sampling); the context holds "
                f"{self._service.context}, the answer included",
                "messages",
            )
        if max(draw.sampling.logit_bias, default=0) >= self._service.policy.vocabulary:
            raise RequestError(f"logit_bias: token ids are below {self._service.policy.vocabulary}", "logit_bias")
        sampling = replace(draw.sampling, max_tokens=min(draw.sampling.max_tokens, room))
        try:
            selection = await self._pipeline.select(
                judged, sampling, draw.candidates, draw.combiner, sampled_behind=behind
            )
        except NothingScored as error:
            return Drawn(len(judged), (), _all_failed(draw, str(error)))
        return Drawn(len(judged), selection.scored, selection.failures)

    def _render(self, messages: tuple[Message, ...], is_safety: bool) -> Prompt:
        fewest = self._service.template.fewest_tokens("".join(message.content for message in messages).strip())
        if fewest > self._service.context:
            raise PromptTooLong(
                f"the prompt has at least {fewest} tokens; the context holds {self._service.context}", "messages"
            )
        return self._service.template.render(messages, is_safety=is_safety)


class Remote:
    """A running Winnow. It tells probabilities; logits are computed back from them, to within 1e-9 up to ±16 and worse beyond:
    from 37 on all are equal, and the lowest index wins."""

    def __init__(self, client: AsyncClient, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._client = client
        self._pause = pause

    async def __call__(self, draw: Draw) -> Drawn:
        """Sample and score; see `Way`."""
        try:
            return await self._drawn(draw)
        except NoScoredCandidate as error:
            return Drawn(0, (), _all_failed(draw, error.message))
        except InvalidRequest as error:
            # Without wishes of its own, a line can only be at fault for its messages: all the others would be refused, too.
            if draw.has_wishes or error.param in ("messages", "max_tokens"):
                raise _refused(error) from None
            raise RunError(f"the server cannot serve this run: {error.message}") from None
        except WinnowClientError as error:
            if isinstance(error, RefusedByServer) and error.status == 413:
                raise PromptTooLong(error.message, "messages") from None
            raise RunError(f"the server does not answer any more: {error}") from None

    async def _drawn(self, draw: Draw) -> Drawn:
        answer = await self._answer(draw)
        if answer.is_refused:
            return Drawn(
                0, (), _all_failed(draw, "the server keeps unsafe answers back; let it serve when_all_unsafe = return")
            )
        ratings: Sequence[Rating | None] = answer.report.scored
        prompt_tokens = answer.usage.prompt_tokens
        if draw.behind != draw.messages:
            ratings = await self._ratings(draw, [_text(item) for item in answer.report.scored])
            prompt_tokens = (await self._client.tokenize(_wire(draw.messages))).count
        pairs = list(zip(answer.report.scored, ratings, strict=True))
        unscored = (Failure(item.index, "the answer could not be scored") for item, rating in pairs if rating is None)
        failures = sorted((*map(_failure, answer.failed), *unscored), key=lambda failure: failure.index)
        scored = tuple(_scored(item, rating) for item, rating in pairs if rating)
        return Drawn(prompt_tokens, scored, tuple(failures))

    async def _answer(self, draw: Draw, limit: int | None = None) -> Answer:
        sampling = draw.sampling
        try:
            return await self._patiently(
                lambda: self._client.answer(
                    _wire(draw.behind),
                    candidates=draw.candidates,
                    is_safety=draw.is_safety,
                    combiner=draw.combiner,
                    return_candidates=True,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k or None,
                    min_p=sampling.min_p or None,
                    max_tokens=limit or sampling.max_tokens,
                    stop=sampling.stop or None,
                    presence_penalty=sampling.presence_penalty or None,
                    frequency_penalty=sampling.frequency_penalty or None,
                    logit_bias=sampling.logit_bias or None,
                    seed=sampling.seed,
                )
            )
        except ContextLengthExceeded:
            if draw.is_limit_own or limit:
                raise
            tokens = await self._client.tokenize(_wire(draw.behind))
            if tokens.count >= tokens.max_model_len:
                raise
            return await self._answer(draw, tokens.max_model_len - tokens.count)

    async def _ratings(self, draw: Draw, texts: Sequence[str]) -> list[Rating | None]:
        """The texts' ratings as answers to the prompt that is stored; None for what cannot be scored."""
        try:
            return list(await self._patiently(lambda: self._rewards(draw, texts)))
        except (InvalidRequest, NoScoredCandidate):
            if len(texts) == 1:
                return [None]
        return [rating for text in texts for rating in await self._ratings(draw, [text])]

    def _rewards(self, draw: Draw, texts: Sequence[str]) -> Awaitable[list[Rating]]:
        return self._client.rewards(_wire(draw.messages), texts, is_safety=draw.is_safety)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """A server that is busy is no reason to stop."""
        while True:
            try:
                return await call()
            except Overloaded as full:
                await self._pause(full.retry_after or BUSY_SECONDS)


def _refused(error: InvalidRequest) -> RequestError:
    problem = RequestError(error.message, error.param)
    problem.code = error.code or problem.code
    return problem


def _wire(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _scored(item: Scored, rating: Rating) -> ScoredCandidate:
    finish: FinishReason = "length" if item.finish_reason == "length" else "stop"
    candidate = Candidate(item.index, (), _text(item), finish, item.tokens)
    helpfulness = None if rating.helpfulness is None else _logit(rating.helpfulness)
    return ScoredCandidate(candidate, Reward(_logit(rating.safety), helpfulness, Branch(rating.branch)))


def _text(item: Scored) -> str:
    if item.text is None:
        raise RunError("the server keeps candidates' texts to itself; is it a Winnow of this version?")
    return item.text


def _failure(failed: Failed) -> Failure:
    return Failure(failed.index, failed.reason)


def _logit(probability: float) -> float:
    """The inverse of the sigmoid; what double precision has rounded to 0 or 1 becomes a large finite logit."""
    p = min(max(probability, 1e-300), 1 - 2**-53)
    return math.log(p) - math.log1p(-p)


def _all_failed(draw: Draw, reason: str) -> tuple[Failure, ...]:
    return tuple(Failure(index, reason) for index in range(draw.candidates))
