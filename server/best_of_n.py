"""The product: one prompt in, the best of K answers out.

Dialog → `Prompt` happens before (`winnow.models.template`); this module samples, scores, combines and ranks. It knows
nothing of HTTP or files: both doors call `BestOfN.select`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from winnow.models.combiner import combine, rank
from winnow.models.errors import CandidateFailed, NoScoredCandidate, WinnowError
from winnow.models.policy import Policy, Sampling
from winnow.models.reward import RewardModel
from winnow.models.types import CombinerName, Failure, Prompt, Reward, ScoredCandidate, Selection, Timings


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Samples K candidates, scores each as it finishes while its siblings still decode, and ranks them."""

    policy: Policy
    safety: RewardModel
    helpfulness: RewardModel

    async def select(self, prompt: Prompt, sampling: Sampling, candidates: int, combiner: CombinerName) -> Selection:
        """Return the selection among `candidates` (K ≥ 1) answers to `prompt`; cancelling aborts all K.

        A candidate that cannot be sampled or scored is left out of the ranking and listed in `failures`.

        Raises:
            NoScoredCandidate: all of them failed, so that there is no winner.
            EngineDead: an engine's process is gone.
        """
        started = time.perf_counter()
        rewards: dict[tuple[int, ...], asyncio.Task[Reward]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                runs = [
                    group.create_task(self._candidate(prompt, sampling, index, rewards)) for index in range(candidates)
                ]
        except* WinnowError as errors:
            raise errors.exceptions[0] from None
        outcomes = [run.result() for run in runs]
        scored = tuple(outcome for outcome in outcomes if isinstance(outcome, ScoredCandidate))
        failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failure))
        if not scored:
            raise NoScoredCandidate(f"none of {candidates} candidates could be scored: {failures[0].reason}")
        timings = _timings(scored, time.perf_counter() - started)
        return Selection(prompt, combiner, scored, rank(scored, combiner), failures, timings)

    async def _candidate(
        self, prompt: Prompt, sampling: Sampling, index: int, rewards: dict[tuple[int, ...], asyncio.Task[Reward]]
    ) -> ScoredCandidate | Failure:
        """Sample and score one candidate; equal answers of one prompt share a score."""
        try:
            candidate = await self.policy.sample(prompt, sampling, index)
            ids = candidate.token_ids
            if ids not in rewards:
                rewards[ids] = asyncio.create_task(self.rate(prompt, ids))
            return ScoredCandidate(candidate, await rewards[ids])
        except CandidateFailed as failure:
            return Failure(index, str(failure))

    async def rate(self, prompt: Prompt, answer_ids: Sequence[int]) -> Reward:
        """Return the reward of one answer. Both models score at once; a safety prompt needs only R_s.

        Raises:
            CandidateFailed: a model gave no finite score.
            EngineDead: an engine's process is gone.
        """
        if prompt.is_safety:
            return combine(True, await self.safety.score(prompt, answer_ids), None)
        safety, helpfulness = await asyncio.gather(
            self.safety.score(prompt, answer_ids), self.helpfulness.score(prompt, answer_ids)
        )
        return combine(False, safety, helpfulness)


def _timings(scored: Sequence[ScoredCandidate], total: float) -> Timings:
    finished = [item.candidate.seconds for item in scored]
    return Timings(
        queue=0.0,
        first_candidate=min(finished),
        generate=max(finished),
        score_tail=max(0.0, total - max(finished)),
        total=total,
    )
