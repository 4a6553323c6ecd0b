"""Engines of this process as a backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from winnow.models.errors import CandidateFailed, ModelUnavailable, NoScoredCandidate
from winnow.models.policy import CandidateHandle, Policy
from winnow.models.sampling import Sampling
from winnow.models.types import Candidate, Prompt
from winnow.server.classifiers import chosen_classifier
from winnow.server.distill.backends.base import Answered, all_failed
from winnow.server.distill.backends.score_batches import BATCH_SECONDS, BatchedRewardModel
from winnow.server.distill.parser import Task
from winnow.server.pipeline.best_of_n import tagged
from winnow.server.pipeline.request import Request
from winnow.server.pipeline.waves import ExpectedGain
from winnow.server.service import Service

T = TypeVar("T")
OUTAGE_SECONDS = 1800.0
"""Longest wait for a reward model's server that is down: longer than a large model takes to load."""
OUTAGE_PAUSE = 1.0
"""Seconds between two looks whether it is up again."""


class InProcess:
    """The pipeline over engines of this process, at their full throughput.

    While a reward model on another server is down, requests wait for it, and are then sampled again: a seed gives the
    same candidates. After `outage_seconds` the run ends, and can be continued.
    """

    def __init__(
        self,
        service: Service,
        batch_seconds: float = BATCH_SECONDS,
        outage_seconds: float = OUTAGE_SECONDS,
        expected_gain: ExpectedGain | None = None,
    ) -> None:
        self._service = service
        self._outage_seconds = outage_seconds
        safety, helpfulness = (
            BatchedRewardModel(model, seconds=batch_seconds, is_sampling=lambda: service.policy.unfinished > 0)
            for model in (service.safety, service.helpfulness)
        )
        self._renderer = replace(
            service.renderer, classifier=chosen_classifier(service.settings, safety, service.calibration("safety"))
        )
        self._pipeline = replace(
            service.pipeline,
            safety=safety,
            helpfulness=helpfulness,
            helpfulness_on_demand=True,
            expected_gain=expected_gain,
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

    async def __call__(self, request: Request, first: int = 0) -> Answered:
        """Sample and score; see `Backend`. Further candidates are those that a larger K would have had."""
        rendered = await self._renderer.render(request)
        pipeline = replace(self._pipeline, policy=_Further(self._pipeline.policy, first)) if first else self._pipeline
        try:
            selection = await self._patiently(
                lambda: pipeline.select(
                    rendered.prompt,
                    rendered.sampling,
                    request.candidates,
                    request.combiner,
                    sampling_prompt=rendered.sampling_prompt,
                    waves=request.waves,
                    classifier=rendered.classifier,
                )
            )
        except NoScoredCandidate as error:
            raise all_failed(request, str(error)) from None
        return Answered(selection, selection.prompt_tokens)

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


@dataclass(frozen=True, slots=True)
class _Further:
    """A policy whose candidate 0 is number `first` of `policy`: it has that one's seed."""

    policy: Policy
    first: int

    @property
    def context(self) -> int:
        return self.policy.context

    @property
    def vocabulary(self) -> int:
        return self.policy.vocabulary

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        return replace(await self.policy.sample(prompt, sampling, self.first + index, handle), index=index)
