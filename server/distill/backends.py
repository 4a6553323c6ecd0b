"""The two backends that sample and score offline: engines in this process, or a running Winnow server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from winnow.clients import AsyncClient
from winnow.clients import errors as client_errors
from winnow.clients.answers import Answer
from winnow.clients.schema import Failed, Rating, Scored
from winnow.models.combiner import rank
from winnow.models.errors import (
    CandidateFailed,
    ModelUnavailable,
    NoScoredCandidate,
    PromptTooLong,
    RequestError,
    RunError,
)
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
from winnow.server.classifiers import SafetyModel, chosen_classifier
from winnow.server.distill.parser import Task
from winnow.server.pipeline.best_of_n import tagged
from winnow.server.pipeline.request import Request
from winnow.server.service import Service

T = TypeVar("T")
BUSY_SECONDS = 5.0
"""Pause before an overloaded server is asked again, if its refusal names no time."""
OUTAGE_SECONDS = 1800.0
"""Longest wait for a reward model's server that is down: longer than a large model takes to load."""
OUTAGE_PAUSE = 1.0
"""Seconds between two looks whether it is up again."""
BATCH_SIZE = 256
"""Score requests that are passed to a reward model at once, without waiting for more."""
BATCH_SECONDS = 0.25
"""Longest wait of a score request for its batch to fill."""


class Answered(NamedTuple):
    """A selection, and the number of tokens of its rendered prompt."""

    selection: Selection
    prompt_tokens: int


class Backend(Protocol):
    """Samples and scores one request."""

    async def __call__(self, request: Request) -> Answered:
        """Return the selection for `request`.

        Raises:
            RequestError: the request itself is at fault.
            NoScoredCandidate: every candidate failed.
            EngineDead, ModelUnavailable, RunError: the backend cannot answer any more.
        """
        ...


class InProcess:
    """The pipeline over engines of this process, at their full throughput.

    While a reward model on another server is down, requests wait for it, and are then sampled again: a seed gives the
    same candidates. After `outage_seconds` the run ends, and can be continued.
    """

    def __init__(
        self, service: Service, batch_seconds: float = BATCH_SECONDS, outage_seconds: float = OUTAGE_SECONDS
    ) -> None:
        self._service = service
        self._outage_seconds = outage_seconds
        safety = BatchedRewardModel(service.safety, seconds=batch_seconds)
        self._renderer = replace(
            service.renderer, classifier=chosen_classifier(service.settings, safety, service.calibration("safety"))
        )
        self._pipeline = replace(
            service.pipeline,
            safety=safety,
            helpfulness=BatchedRewardModel(service.helpfulness, seconds=batch_seconds),
            helpfulness_on_demand=True,
        )

    async def is_safety(self, task: Task) -> bool:
        """Whether the chosen classifier takes the line's dialog for a safety prompt.

        Raises:
            RequestError: the dialog cannot be rendered.
            NoScoredCandidate: the classifier cannot tell.
            EngineDead, ModelUnavailable: an engine has died, or is down for too long.
        """
        dialog = await self._renderer.render_dialog(task.messages, task.options.merge_turns)
        prompt, classifier = self._renderer.tagging(dialog, None, "messages")
        try:
            return (await self._patiently(lambda: tagged(prompt, classifier))).is_safety
        except CandidateFailed as error:
            raise NoScoredCandidate(str(error), ()) from None

    async def __call__(self, request: Request) -> Answered:
        """Sample and score; see `Backend`."""
        rendered = await self._renderer.render(request)
        try:
            selection = await self._patiently(
                lambda: self._pipeline.select(
                    rendered.prompt,
                    rendered.sampling,
                    request.candidates,
                    request.combiner,
                    sampling_prompt=rendered.sampling_prompt,
                    classifier=rendered.classifier,
                )
            )
        except NoScoredCandidate as error:
            raise _all_failed(request, str(error)) from None
        return Answered(selection, len(selection.prompt))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` does, again from the start whenever a reward model's server was down meanwhile."""
        deadline: float | None = None
        while True:
            try:
                self._service.require_engines()
                return await call()
            except ModelUnavailable as error:
                now = time.monotonic()
                deadline = now + self._outage_seconds if deadline is None else deadline
                if now >= deadline:
                    raise
                pause = OUTAGE_PAUSE if self._service.outages else error.retry_after
                await asyncio.sleep(min(pause, deadline - now))


class BatchedRewardModel:
    """Batches score requests: more throughput, up to 0.25 s more latency. Offline only.

    Scored one by one as candidates finish, a small model's passes are mostly overhead. Here `size` requests are
    passed to `model` together, or fewer once the oldest has waited for `seconds`.
    """

    def __init__(self, model: SafetyModel, size: int = BATCH_SIZE, seconds: float = BATCH_SECONDS) -> None:
        self._model = model
        self._size = size
        self._seconds = seconds
        self._waiting = 0
        self._batch = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def verdict(self, prompt: Prompt) -> float:
        """Judge one prompt; see `GuardModel.verdict`."""
        return await self._model.verdict(prompt)

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`."""
        self._waiting += 1
        batch = self._batch
        if self._waiting >= self._size:
            self._release()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._release)
        await batch.wait()
        return await self._model.score(prompt, answer)

    def _release(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        self._waiting = 0
        self._batch.set()
        self._batch = asyncio.Event()


class Remote:
    """A running Winnow server.

    It returns probabilities. Logits are computed back from them, to within 1e-9 up to ±16 and less exactly
    beyond; from 37 on all are equal, and the lowest index wins.
    """

    def __init__(
        self,
        client: AsyncClient,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        empty_last: bool = True,
    ) -> None:
        self._client = client
        self._pause = pause
        self._empty_last = empty_last

    async def __call__(self, request: Request) -> Answered:
        """Sample and score; see `Backend`."""
        try:
            return await self._answered(request)
        except client_errors.NoScoredCandidate as error:
            raise _all_failed(request, error.message) from None
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
        answer = await self._answer(request)
        if answer.is_refused:
            raise _all_failed(request, "the server withholds unsafe answers; let it serve when_all_unsafe = return")
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
                    candidates=request.candidates,
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


def _request_error(error: client_errors.InvalidRequest) -> RequestError:
    problem = RequestError(error.message, error.param)
    problem.code = error.code or problem.code
    return problem


def _all_failed(request: Request, reason: str) -> NoScoredCandidate:
    return NoScoredCandidate(reason, tuple(Failure(index, reason) for index in range(request.candidates)))


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
