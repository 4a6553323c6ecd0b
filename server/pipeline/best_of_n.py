"""The product: one prompt in, the best of K answers out.

Dialog → `Prompt` happens before (`winnow.models.chat_templates.llama2`); this module samples, scores, combines and ranks. It knows
nothing of HTTP or files: both doors call `BestOfN.select`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from winnow.models.combiner import combine, rank
from winnow.models.errors import NoScoredCandidate, WinnowError, root_cause
from winnow.models.reward_model import RewardModel
from winnow.models.sampling import Policy, Sampling
from winnow.models.types import (
    CombinerName,
    Progress,
    Prompt,
    Reward,
    ScoredCandidate,
    Selection,
    Timings,
    is_gated,
)
from winnow.server.pipeline.candidate_run import CandidateRun
from winnow.server.pipeline.early_stopping import EarlyStopping

ALL = EarlyStopping()
"""Wait for all candidates."""


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Samples K candidates, scores each as it finishes while its siblings still decode, and ranks them."""

    policy: Policy
    safety: RewardModel
    helpfulness: RewardModel
    is_sparing: bool = False
    """Ask for R_h only where R_s does not decide already: less work, for one more wait. Who waits for an answer would rather not."""

    async def select(
        self,
        prompt: Prompt,
        sampling: Sampling,
        candidates: int,
        combiner: CombinerName,
        on_progress: Callable[[Progress], None] | None = None,
        sampled_behind: Prompt | None = None,
        dial: EarlyStopping = ALL,
    ) -> Selection:
        """Return the selection among `candidates` (K ≥ 1) answers to `prompt`; cancelling aborts all K.

        A candidate that cannot be sampled or scored is left out of the ranking and listed in `failures`. `on_progress` is
        called each time one has ended. `sampled_behind` is another prompt to sample behind: its answers are
        judged as answers to `prompt` (context distillation; Llama 2, section 4.2.4). `dial` says when less than all K will do;
        who is given up for it is listed in `aborted`.

        Raises:
            NoScoredCandidate: all of them failed, so that there is no winner.
            EngineDead: an engine's process is gone.
        """
        started = time.perf_counter()
        behind = sampled_behind or prompt
        run = CandidateRun(
            sample=lambda index, handle: self.policy.sample(behind, sampling, index, handle),
            rate=lambda ids: self.rate(prompt, ids),
            candidates=candidates,
            combiner=combiner,
            dial=dial,
            on_progress=on_progress,
        )
        await run.run()
        if not run.scored:
            reason = (
                min(run.failures, key=lambda failure: failure.index).reason if run.failures else "all were given up"
            )
            raise NoScoredCandidate(f"none of {candidates} candidates could be scored: {reason}")
        scored = tuple(sorted(run.scored, key=lambda item: item.candidate.index))
        failures = tuple(sorted(run.failures, key=lambda failure: failure.index))
        aborted = tuple(sorted(run.aborted, key=lambda item: item.index))
        timings = _timings(scored, time.perf_counter() - started)
        # Whoever ended together with the one that was good enough has truncated nothing.
        truncated_by = run.truncated_by if any(item.reason == run.truncated_by for item in aborted) else None
        return Selection(prompt, combiner, scored, rank(scored, combiner), failures, timings, aborted, truncated_by)

    async def rate(self, prompt: Prompt, answer_ids: Sequence[int]) -> Reward:
        """Return the reward of one answer. Both models score at once; a safety prompt needs only R_s.

        Raises:
            CandidateFailed: a model gave no finite score.
            EngineDead: an engine's process is gone.
        """
        if prompt.is_safety:
            return combine(True, await self.safety.score(prompt, answer_ids), None)
        if self.is_sparing:
            return await self._rate_sparingly(prompt, answer_ids)
        try:
            async with asyncio.TaskGroup() as group:
                safety = group.create_task(self.safety.score(prompt, answer_ids))
                helpfulness = group.create_task(self.helpfulness.score(prompt, answer_ids))
        except* WinnowError as errors:
            raise root_cause(errors) from None
        return combine(False, safety.result(), helpfulness.result())

    async def _rate_sparingly(self, prompt: Prompt, answer_ids: Sequence[int]) -> Reward:
        safety = await self.safety.score(prompt, answer_ids)
        needed = math.isfinite(safety) and not is_gated(safety)
        return combine(False, safety, await self.helpfulness.score(prompt, answer_ids) if needed else None)


def _timings(scored: Sequence[ScoredCandidate], total: float) -> Timings:
    finished = [item.candidate.seconds for item in scored]
    return Timings(
        queue=0.0,
        first_candidate=min(finished),
        generate=max(finished),
        score_tail=max(0.0, total - max(finished)),
        total=total,
    )
