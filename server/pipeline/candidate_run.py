"""One run of K candidates that are sampled and scored concurrently, until all have finished or enough is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field

from winnow.models.combiner import rank
from winnow.models.errors import CandidateFailed, CandidateStopped, WinnowError, root_cause
from winnow.models.policy import CandidateHandle
from winnow.models.types import (
    Aborted,
    AbortReason,
    Candidate,
    CombinerName,
    Failure,
    Progress,
    Reward,
    ScoredCandidate,
    Truncation,
)
from winnow.server.aio import cancel, retrieve_exception
from winnow.server.pipeline.early_stopping import EarlyStopping, RejectionRounds

STOP_SECONDS = 0.02
"""Seconds that a stopped candidate has to report its token count; then it is cancelled, and counts 0 tokens."""


@dataclass(slots=True)
class CandidateRun:
    """The state of K candidates; `run` samples and scores them. Lists are in the order in which candidates ended.

    `sample` is the policy's method and `rate` the reward models', bound to one prompt. Equal texts share one reward.
    """

    sample: Callable[[int, CandidateHandle | None], Awaitable[Candidate]]
    rate: Callable[[str], Coroutine[None, None, Reward]]
    candidates: int
    combiner: CombinerName
    early_stopping: EarlyStopping
    on_progress: Callable[[Progress], None] | None = None
    empty_last: bool = True
    truncated_by: Truncation | None = None
    finished: dict[int, Candidate] = field(default_factory=dict)
    scored: list[ScoredCandidate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    aborted: list[Aborted] = field(default_factory=list)
    _rewards: dict[str, asyncio.Task[Reward]] = field(default_factory=dict)
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _handles: dict[int, CandidateHandle] = field(default_factory=dict)
    _abort_reasons: dict[int, AbortReason] = field(default_factory=dict)
    _partial_scores: dict[asyncio.Task[None], int] = field(default_factory=dict)
    _rejection: RejectionRounds | None = None
    _is_late: bool = False
    _is_failing: bool = False
    """The task group is being cancelled: no task may be started in it any more."""
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    async def run(self) -> None:
        """Sample and score until every candidate has finished, failed or been aborted.

        Cancelling aborts those that have not finished.

        Raises:
            EngineDead: an engine's process has died.
        """
        if self.early_stopping.early_rejection:
            self._rejection = RejectionRounds(self.early_stopping.early_rejection, self.candidates, self.combiner)
        timer: asyncio.TimerHandle | None = None
        deadline = self.early_stopping.deadline
        try:
            async with self._group as group:
                for index in range(self.candidates):
                    self._tasks[index] = group.create_task(self._candidate(index))
                if deadline is not None:
                    timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), self._expire)
        except* WinnowError as errors:
            raise root_cause(errors) from None
        finally:
            if timer:
                timer.cancel()
            self._handles.clear()
            if ratings := [rating for rating in self._rewards.values() if not rating.done()]:
                for rating in ratings:
                    cancel(rating)
                await asyncio.wait(ratings)

    async def _candidate(self, index: int) -> None:
        """Sample and score one candidate."""
        try:
            candidate = await self.sample(index, self._handle(index))
            self.finished[index] = candidate
            if self._abort_reasons.get(index) == "early_rejection":
                del self._abort_reasons[index]  # it finished before the abort, so it is ranked
            # Shielded: a sibling with the same answer may still need the score.
            reward = await asyncio.shield(self._reward(candidate.text))
            self.scored.append(ScoredCandidate(candidate, reward))
        except CandidateFailed as failure:
            self.failures.append(Failure(index, str(failure)))
        except CandidateStopped as stopped:
            self.aborted.append(Aborted(index, self._abort_reasons[index], stopped.tokens))
        except asyncio.CancelledError:
            if index not in self._abort_reasons:
                self._is_failing = True
                raise
            tokens = self.finished[index].tokens if index in self.finished else 0
            self.aborted.append(Aborted(index, self._abort_reasons[index], tokens))
        except WinnowError:
            self._is_failing = True
            raise
        self._note_end(index)

    def _handle(self, index: int) -> CandidateHandle | None:
        if not self.early_stopping.is_enabled:
            return None
        rejection = self.early_stopping.early_rejection
        handle = self._handles[index] = CandidateHandle()
        if rejection:
            handle.checkpoints = rejection.at_tokens
            handle.at_checkpoint = lambda checkpoint, text: self._start_partial_score(checkpoint, index, text)
        return handle

    def _reward(self, text: str) -> asyncio.Task[Reward]:
        if text not in self._rewards:
            self._rewards[text] = asyncio.create_task(self.rate(text))
            retrieve_exception(self._rewards[text])
        return self._rewards[text]

    def _note_end(self, index: int) -> None:
        """Note that a candidate has finished, failed or been aborted, and stop the run if that is enough."""
        del self._tasks[index]
        if self.on_progress:
            self.on_progress(self.progress)
        if self._rejection:
            competes = any(item.candidate.index == index for item in self.scored)
            self._reject(self._rejection.end(index, competes=competes))
            self._cancel_partial_scores([index] if self._tasks else self._partial_scores.values())
        if self.early_stopping.is_enabled and (answer := self._answer):
            if self._is_accepted(answer.reward):
                self._truncate("accept_reward")
            elif self._is_late:
                self._truncate("deadline")

    @property
    def _answer(self) -> ScoredCandidate | None:
        """The best candidate so far, if the others may be aborted for its sake: not for an empty answer's."""
        leader = self._leader if self.scored else None
        return None if leader and self.empty_last and leader.candidate.is_empty else leader

    def _is_accepted(self, reward: Reward) -> bool:
        accepted = self.early_stopping.accept_reward
        if accepted is None or (self.combiner == "safe_first" and reward.is_gated):
            return False
        return reward.combined >= accepted

    @property
    def _leader(self) -> ScoredCandidate:
        return self.scored[rank(self.scored, self.combiner, empty_last=self.empty_last)[0]]

    @property
    def progress(self) -> Progress:
        """The progress so far."""
        best = self._leader.reward.combined if self.scored else None
        return Progress(len(self.finished), len(self.scored), self.candidates, best)

    def _expire(self) -> None:
        self._is_late = True
        if self._answer:
            self._truncate("deadline")

    def _truncate(self, reason: Truncation) -> None:
        """Abort every unfinished candidate; the first reason counts."""
        if not self.truncated_by and any(index not in self._abort_reasons for index in self._tasks):
            self.truncated_by = reason
            self._abort(self._tasks, reason)

    def _abort(self, indices: Iterable[int], reason: AbortReason) -> None:
        unfinished = [index for index in indices if index in self._tasks and index not in self._abort_reasons]
        if unfinished and not self._is_failing:
            self._abort_reasons |= dict.fromkeys(unfinished, reason)
            self._cancel_partial_scores(unfinished)
            self._group.create_task(self._stop_in_engine({index: self._tasks[index] for index in unfinished}))

    async def _stop_in_engine(self, unfinished: dict[int, asyncio.Task[None]]) -> None:
        """Stop candidates in their engine, which reports their tokens; cancel those being scored or slow to stop."""
        sampling = {task: self._handles[index] for index, task in unfinished.items() if index not in self.finished}
        for task in unfinished.values():
            if task not in sampling:
                task.cancel()
        if sampling:
            await asyncio.gather(*(handle.stop() for handle in sampling.values()))
            await asyncio.wait(sampling, timeout=STOP_SECONDS)
            for index, task in unfinished.items():
                if task in sampling and index in self._abort_reasons:
                    task.cancel()

    def _start_partial_score(self, checkpoint: int, index: int, text: str) -> None:
        """Start scoring the partial answer of a candidate that has passed a checkpoint, while it decodes on.

        One that has no text yet, such as a line end or the first byte of a character, tells nothing: it goes on.
        """
        if index in self._tasks and index not in self._abort_reasons and not self._is_failing:
            if self.empty_last and not text.strip():
                assert self._rejection
                self._reject(self._rejection.score(checkpoint, index, None))
                return
            task = self._group.create_task(self._score_partially(checkpoint, index, text))
            self._partial_scores[task] = index
            task.add_done_callback(lambda done: self._partial_scores.pop(done, None))

    def _cancel_partial_scores(self, indices: Iterable[int]) -> None:
        ended = set(indices)
        for task, index in self._partial_scores.items():
            if index in ended:
                task.cancel()

    async def _score_partially(self, checkpoint: int, index: int, text: str) -> None:
        assert self._rejection
        try:
            reward = await asyncio.shield(self._reward(text))
            part = ScoredCandidate(Candidate(index, text, "length", 0), reward)
        except CandidateFailed:
            part = None
        self._reject(self._rejection.score(checkpoint, index, part))

    def _reject(self, indices: Iterable[int]) -> None:
        """Abort rejected candidates; those that have finished meanwhile compete, since their tokens have been spent."""
        self._abort([index for index in indices if index not in self.finished], "early_rejection")
