"""A running Winnow server as a backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from winnow.clients import AsyncClient
from winnow.clients import errors as client_errors
from winnow.clients.answers import Answer
from winnow.clients.schema import Failed, Rating, Scored
from winnow.models.combiner import rank
from winnow.models.errors import NoScoredCandidate, PromptTooLong, RequestError, RunError
from winnow.models.sampling import derived_seed
from winnow.models.types import (
    Branch,
    Candidate,
    Failure,
    FinishReason,
    Message,
    Prompt,
    Reward,
    ScoredCandidate,
    Selection,
    Timings,
    logit,
)
from winnow.server.distill.backends.base import Answered, all_failed
from winnow.server.pipeline.request import Request
from winnow.server.pipeline.waves import Waves

T = TypeVar("T")
BUSY_SECONDS = 5.0
"""Pause before an overloaded server is asked again, if its refusal names no time."""
FURTHER = 1
"""Tells the seeds of further candidates from those of the first ones."""


class Remote:
    """A running Winnow server.

    It returns probabilities. Logits are computed back from them, to within 1e-9 up to ±16 and less exactly
    beyond; from 37 on all are equal, and the lowest index wins.

    `gains` is the digest of the server's table of expected gains, if prompts stop by it; it must not change. A server
    cannot go on with a prompt: further candidates have a seed of their own, derived from the request's.
    """

    def __init__(
        self,
        client: AsyncClient,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        empty_last: bool = True,
        gains: str | None = None,
    ) -> None:
        self._client = client
        self._gains = gains
        self._pause = pause
        self._empty_last = empty_last

    async def __call__(self, request: Request, first: int = 0) -> Answered:
        """Sample and score; see `Backend`."""
        if first:
            seed = derived_seed(request.sampling.seed or 0, FURTHER, first)
            request = replace(request, sampling=replace(request.sampling, seed=seed))
        try:
            return await self._answered(request)
        except client_errors.NoScoredCandidate as error:
            raise all_failed(request, error.message) from None
        except client_errors.InvalidRequest as error:
            # A line without options of its own is only at fault for its messages; other refusals would hit every line.
            if request.has_options or error.param in ("messages", "max_tokens"):
                raise _request_error(error) from None
            raise RunError(f"the server cannot serve this run: {error.message}") from None
        except client_errors.WinnowClientError as error:
            if isinstance(error, client_errors.RefusedByServer) and error.status == 413:
                raise PromptTooLong(error.message, "messages") from None
            raise RunError(f"the server does not answer any more: {error}") from None

    async def _answered(self, request: Request) -> Answered:
        dialog = _dialog(request)
        while (answer := await self._answer(request)).report.reduced_by == "load":
            await self._pause(BUSY_SECONDS)  # its load must not decide how many candidates a prompt has
        if answer.report.gains not in (None, self._gains):
            raise RunError(
                "the server's table of expected gains is not the one that the run began with; start it with that one"
            )
        if answer.is_refused:
            raise all_failed(request, "the server withholds unsafe answers; let it serve when_all_unsafe = return")
        ratings: Sequence[Rating | None] = answer.report.scored
        prompt_tokens = answer.usage.prompt_tokens
        if _sampling_dialog(request) != dialog:
            ratings = await self._ratings(request, [_text(item) for item in answer.report.scored])
            prompt_tokens = (await self._client.tokenize(_wire(dialog))).count
        return Answered(_selection(request, answer, ratings, empty_last=self._empty_last), prompt_tokens)

    async def _answer(self, request: Request, limit: int | None = None) -> Answer:
        sampling, dialog = request.sampling, _wire(_sampling_dialog(request))
        try:
            return await self._retrying(
                lambda: self._client.answer(
                    dialog,
                    candidates=_candidates(request),
                    adaptive=_adaptive(request.waves),
                    is_safety=request.is_safety,
                    combiner=request.combiner,
                    return_candidates=True,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k or None,
                    min_p=sampling.min_p or None,
                    max_tokens=limit or sampling.max_tokens,
                    min_tokens=sampling.min_tokens or None,
                    ignore_eos=sampling.ignore_eos or None,
                    stop=sampling.stop or None,
                    presence_penalty=sampling.presence_penalty or None,
                    frequency_penalty=sampling.frequency_penalty or None,
                    repetition_penalty=None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
                    logit_bias=sampling.logit_bias or None,
                    seed=sampling.seed,
                )
            )
        except client_errors.ContextLengthExceeded:
            if request.options.max_tokens is not None or limit:
                raise
            tokens = await self._client.tokenize(dialog)
            if tokens.count >= tokens.max_model_len:
                raise
            return await self._answer(request, tokens.max_model_len - tokens.count)

    async def _ratings(self, request: Request, texts: Sequence[str]) -> list[Rating | None]:
        """Return the texts' ratings as answers to the stored dialog; None for a text that cannot be scored."""
        try:
            return list(await self._retrying(lambda: self._rewards(request, texts)))
        except (client_errors.InvalidRequest, client_errors.NoScoredCandidate):
            if len(texts) == 1:
                return [None]
        return [rating for text in texts for rating in await self._ratings(request, [text])]

    def _rewards(self, request: Request, texts: Sequence[str]) -> Awaitable[list[Rating]]:
        return self._client.rewards(_wire(_dialog(request)), texts, is_safety=request.is_safety)

    async def _retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat `call` for as long as the server is overloaded."""
        while True:
            try:
                return await call()
            except client_errors.Overloaded as overloaded:
                await self._pause(overloaded.retry_after or BUSY_SECONDS)


def _dialog(request: Request) -> tuple[Message, ...]:
    assert isinstance(request.prompt, tuple), "offline requests are dialogs"
    return request.prompt


def _sampling_dialog(request: Request) -> tuple[Message, ...]:
    return _dialog(request) if request.sampling_dialog is None else request.sampling_dialog


def _wire(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [message.as_dict() for message in messages]


def _candidates(request: Request) -> int | dict[str, int]:
    """Return K, which load may not shrink; of waves it is the most, and the least would be that of the first one."""
    return request.candidates if request.waves else {"min": request.candidates, "max": request.candidates}


def _adaptive(waves: Waves | None) -> dict[str, Any] | Literal[False]:
    """Return the option for these waves: False if there are none, whatever the server's default is."""
    if waves is None:
        return False
    name, value = ("gain", waves.gain) if waves.reward is None else ("reward", waves.reward)
    return {"start": waves.start, "step": waves.step, "stop": {name: value}}


def _request_error(error: client_errors.InvalidRequest) -> RequestError:
    problem = RequestError(error.message, error.param)
    problem.code = error.code or problem.code
    return problem


def _selection(request: Request, answer: Answer, ratings: Sequence[Rating | None], *, empty_last: bool) -> Selection:
    """Return the server's candidates with `ratings`, which may differ from its own, as a selection.

    Raises:
        NoScoredCandidate: no candidate has a rating.
    """
    pairs = list(zip(answer.report.scored, ratings, strict=True))
    unscored = (Failure(item.index, "the answer could not be scored") for item, rating in pairs if rating is None)
    failures = sorted((*map(_failure, answer.failed), *unscored), key=lambda failure: failure.index)
    scored = tuple(_scored(item, rating) for item, rating in pairs if rating)
    if not scored:
        raise NoScoredCandidate(failures[0].reason, tuple(failures))
    timings = answer.report.timings_ms.model_dump()
    return Selection(
        prompt=Prompt((), _dialog(request), bool(request.is_safety)),
        combiner=request.combiner,
        scored=scored,
        ranking=rank(scored, request.combiner, empty_last=empty_last),
        failures=tuple(failures),
        timings=Timings(**{name: span / 1e3 for name, span in timings.items()}),
        empty_last=empty_last,
        waves=answer.report.waves,
        stopped_by=answer.report.stopped_by,
    )


def _scored(item: Scored, rating: Rating) -> ScoredCandidate:
    finish: FinishReason = "length" if item.finish_reason == "length" else "stop"
    helpfulness = None if rating.helpfulness is None else logit(rating.helpfulness)
    reward = Reward(logit(rating.safety), helpfulness, Branch(rating.branch))
    return ScoredCandidate(Candidate(item.index, _text(item), finish, item.tokens), reward)


def _text(item: Scored) -> str:
    if item.text is None:
        raise RunError("the server does not return the candidates' texts; is it a Winnow of this version?")
    return item.text


def _failure(failed: Failed) -> Failure:
    return Failure(failed.index, failed.reason)
