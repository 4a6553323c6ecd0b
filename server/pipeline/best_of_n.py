"""Best-of-N selection: one prompt in, the best of K answers out. This function is the product.

A `Prompt` is rendered before (`winnow.models.chat_templates`); this module samples, scores, combines and ranks.
It knows neither HTTP nor files: both call `BestOfN.select`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from winnow.models.combiner import combine, rank
from winnow.models.errors import NoScoredCandidate, WinnowError, root_cause
from winnow.models.policy import Policy
from winnow.models.reward_model import IDENTITY, Calibration, RewardModel
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.sampling import Sampling
from winnow.models.types import (
    CombinerName,
    Progress,
    Prompt,
    Reward,
    Selection,
    Timings,
    is_gated,
)
from winnow.server.aio import cancel
from winnow.server.pipeline.candidate_run import CandidateRun
from winnow.server.pipeline.early_stopping import NEVER, EarlyStopping
from winnow.server.pipeline.room import UNBOUNDED, Room
from winnow.server.pipeline.waves import ExpectedGain, Waves


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Samples K candidates, scores each as it finishes while its siblings still decode, and ranks them."""

    policy: Policy
    safety: RewardModel
    helpfulness: RewardModel
    safety_calibration: Calibration = IDENTITY
    helpfulness_calibration: Calibration = IDENTITY
    empty_last: bool = True
    """Rank an answer without text below every other, and end no selection for one."""
    helpfulness_on_demand: bool = False
    """Compute R_h only if R_s does not already decide: less work, but one scoring pass more latency. For
    offline runs.
    """
    expected_gain: ExpectedGain | None = None
    """The worth of further candidates; None if it is not known, so that no waves end by it."""

    async def select(
        self,
        prompt: Prompt,
        sampling: Sampling,
        candidates: int,
        combiner: CombinerName,
        on_progress: Callable[[Progress], None] | None = None,
        sampling_prompt: Prompt | None = None,
        early_stopping: EarlyStopping = NEVER,
        classifier: SafetyClassifier | None = None,
        waves: Waves | None = None,
        room: Room = UNBOUNDED,
    ) -> Selection:
        """Return the selection among `candidates` (K ≥ 1) answers to `prompt`; cancelling aborts all K.

        A candidate that cannot be sampled or scored is not ranked, and is listed in `failures`. `on_progress`
        is called each time a candidate has ended. `sampling_prompt` replaces the prompt for sampling only: its
        answers are scored as answers to `prompt` (context distillation; Llama 2, section 4.2.4). Candidates
        stopped by `early_stopping` are listed in `aborted`. `classifier` tags the prompt while the candidates are
        sampled, before the first is scored; if it cannot, none is scored. None: the prompt is tagged. With `waves` they
        are drawn in waves, up to K, and the outcome is the exact best of those that were needed; `room` has the places
        of all waves but the first.

        Raises:
            NoScoredCandidate: all of them failed, so there is no winner.
            EngineDead: an engine's process has died.
        """
        started = time.perf_counter()
        sampled = sampling_prompt or prompt
        tagging = asyncio.create_task(tagged(prompt, classifier))
        run = CandidateRun(
            sample=lambda index, handle: self.policy.sample(sampled, sampling, index, handle),
            rate=lambda answer: self._rate_tagged(tagging, answer),
            candidates=candidates,
            combiner=combiner,
            empty_last=self.empty_last,
            early_stopping=early_stopping,
            on_progress=on_progress,
            waves=waves,
            expected_gain=self.expected_gain,
            is_safety=lambda: tagging.result().is_safety,
            room=room,
        )
        try:
            await run.run()
        finally:
            cancel(tagging)
        if not run.standing.scored:
            failures = tuple(sorted(run.standing.failures, key=lambda failure: failure.index))
            reason = failures[0].reason if failures else "all were aborted"
            raise NoScoredCandidate(f"none of {candidates} candidates could be scored: {reason}", failures)
        return self._selection(run, tagging.result(), combiner, time.perf_counter() - started)

    def _selection(self, run: CandidateRun, prompt: Prompt, combiner: CombinerName, seconds: float) -> Selection:
        """Return what a run that took `seconds` has scored, ranked."""
        failures = tuple(sorted(run.standing.failures, key=lambda failure: failure.index))
        scored = tuple(sorted(run.standing.scored, key=lambda item: item.candidate.index))
        aborted = tuple(sorted(run.standing.aborted, key=lambda item: item.index))
        timings = _timings([run.finished_after(item.candidate) for item in scored], seconds)
        # Report a truncation only if it aborted a candidate.
        truncated_by = run.truncated_by if any(item.reason == run.truncated_by for item in aborted) else None
        ranking = rank(scored, combiner, empty_last=self.empty_last)
        return Selection(
            prompt,
            combiner,
            scored,
            ranking,
            failures,
            timings,
            aborted,
            truncated_by,
            empty_last=self.empty_last,
            reduced_by=run.stopped_by if run.stopped_by in ("load", "deadline") else None,
            waves=run.book.waves if run.waves else None,
            stopped_by=run.stopped_by if run.waves else None,
        )

    async def _rate_tagged(self, tagging: asyncio.Task[Prompt], answer: str) -> Reward:
        # Shielded: the siblings of a candidate that is aborted still need the tag.
        return await self.rate(await asyncio.shield(tagging), answer)

    async def rate(self, prompt: Prompt, answer: str) -> Reward:
        """Return the reward of one answer. Both models score at once; a safety prompt needs only R_s.

        Raises:
            CandidateFailed: a model gave no finite score.
            EngineDead: an engine's process has died.
        """
        if prompt.is_safety:
            return combine(True, await self._safety_logit(prompt, answer), None)
        if self.helpfulness_on_demand:
            return await self._rate_on_demand(prompt, answer)
        try:
            async with asyncio.TaskGroup() as group:
                safety = group.create_task(self._safety_logit(prompt, answer))
                helpfulness = group.create_task(self._helpfulness_logit(prompt, answer))
        except* WinnowError as errors:
            raise root_cause(errors) from None
        return combine(False, safety.result(), helpfulness.result())

    async def _rate_on_demand(self, prompt: Prompt, answer: str) -> Reward:
        safety = await self._safety_logit(prompt, answer)
        is_needed = math.isfinite(safety) and not is_gated(safety)
        return combine(False, safety, await self._helpfulness_logit(prompt, answer) if is_needed else None)

    async def _safety_logit(self, prompt: Prompt, answer: str) -> float:
        return self.safety_calibration(await self.safety.score(prompt, answer))

    async def _helpfulness_logit(self, prompt: Prompt, answer: str) -> float:
        return self.helpfulness_calibration(await self.helpfulness.score(prompt, answer))


async def tagged(prompt: Prompt, classifier: SafetyClassifier | None) -> Prompt:
    """Return the prompt with the classifier's tag; as it is without a classifier.

    Raises:
        CandidateFailed: the classifier cannot tell.
        EngineDead: an engine's process has died.
    """
    return replace(prompt, is_safety=await classifier.is_safety(prompt)) if classifier else prompt


def _timings(finished: Sequence[float], total: float) -> Timings:
    return Timings(
        queue=0.0,
        first_candidate=min(finished),
        generate=max(finished),
        score_tail=max(0.0, total - max(finished)),
        total=total,
    )
