"""One selection under way: K candidates that are sampled and scored at once, until all are done or enough is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field

from winnow.models.combiner import rank
from winnow.models.errors import CandidateFailed, CandidateStopped, WinnowError, root_cause
from winnow.models.policy import Handle
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
from winnow.server.pipeline.early_stopping import EarlyStopping, Rejection
from winnow.server.pipeline.lifecycle import give_up

STOP_SECONDS = 0.02
"""How long a stopped candidate may take to say how far it had come, before it is cancelled without a word."""

TokenIds = tuple[int, ...]


@dataclass(slots=True)
class CandidateRun:
    """What has come of K candidates so far, in the order in which it came; `run` makes it come.

    `sample` and `rate` are the policy's and the reward models', bound to one prompt.
    """

    sample: Callable[[int, Handle | None], Awaitable[Candidate]]
    rate: Callable[[TokenIds], Coroutine[None, None, Reward]]
    candidates: int
    combiner: CombinerName
    dial: EarlyStopping
    on_progress: Callable[[Progress], None] | None = None
    truncated_by: Truncation | None = None
    finished: dict[int, Candidate] = field(default_factory=dict)
    scored: list[ScoredCandidate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    aborted: list[Aborted] = field(default_factory=list)
    _rewards: dict[TokenIds, asyncio.Task[Reward]] = field(default_factory=dict)
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _handles: dict[int, Handle] = field(default_factory=dict)
    _given_up: dict[int, AbortReason] = field(default_factory=dict)
    _looks: dict[asyncio.Task[None], int] = field(default_factory=dict)
    _rejection: Rejection | None = None
    _is_late: bool = False
    _is_failing: bool = False
    """The group is being taken down: nothing may be started in it any more."""
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    async def run(self) -> None:
        """Sample and score until every candidate has ended, in whatever way; cancelling aborts those that have not.

        Raises:
            EngineDead: an engine's process is gone.
        """
        if self.dial.early_rejection:
            self._rejection = Rejection(self.dial.early_rejection, self.candidates, self.combiner)
        timer: asyncio.TimerHandle | None = None
        try:
            async with self._group as group:
                for index in range(self.candidates):
                    self._tasks[index] = group.create_task(self._candidate(index))
                if self.dial.deadline is not None:
                    timer = asyncio.get_running_loop().call_later(self.dial.deadline - time.monotonic(), self._expire)
        except* WinnowError as errors:
            raise root_cause(errors) from None
        finally:
            if timer:
                timer.cancel()
            self._handles.clear()
            if ratings := [rating for rating in self._rewards.values() if not rating.done()]:
                for rating in ratings:
                    give_up(rating)
                await asyncio.wait(ratings)

    async def _candidate(self, index: int) -> None:
        """Sample and score one candidate; equal answers of one prompt share a score."""
        try:
            candidate = await self.sample(index, self._handle(index))
            self.finished[index] = candidate
            if self._given_up.get(index) == "early_rejection":
                del self._given_up[index]  # it was faster: it has been paid for, and competes
            # Shielded: a sibling with the same answer may still want it.
            reward = await asyncio.shield(self._reward(candidate.token_ids))
            self.scored.append(ScoredCandidate(candidate, reward))
        except CandidateFailed as failure:
            self.failures.append(Failure(index, str(failure)))
        except CandidateStopped as stopped:
            self.aborted.append(Aborted(index, self._given_up[index], stopped.tokens))
        except asyncio.CancelledError:
            if index not in self._given_up:
                self._is_failing = True
                raise
            tokens = self.finished[index].tokens if index in self.finished else 0
            self.aborted.append(Aborted(index, self._given_up[index], tokens))
        except WinnowError:
            self._is_failing = True
            raise
        self._ended(index)

    def _handle(self, index: int) -> Handle | None:
        if not self.dial.is_set:
            return None
        rejection = self.dial.early_rejection
        handle = self._handles[index] = Handle()
        if rejection:
            handle.checkpoints = rejection.at_tokens
            handle.at_checkpoint = lambda checkpoint, ids: self._look(checkpoint, index, ids)
        return handle

    def _reward(self, ids: TokenIds) -> asyncio.Task[Reward]:
        if ids not in self._rewards:
            rating = self._rewards[ids] = asyncio.create_task(self.rate(ids))
            # Whoever wanted it may have been given up: then nobody asks how it went.
            rating.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._rewards[ids]

    def _ended(self, index: int) -> None:
        """One more has ended: is it enough, and what do the others have to hear?"""
        del self._tasks[index]
        if self.on_progress:
            self.on_progress(self.progress)
        if self._rejection:
            self._reject(
                self._rejection.end(index, competes=any(item.candidate.index == index for item in self.scored))
            )
            self._look_away([index] if self._tasks else self._looks.values())
        if self.scored and self._is_accepted(self._leader.reward):
            self._stop("accept_reward")
        elif self.scored and self._is_late:
            self._stop("deadline")

    def _is_accepted(self, reward: Reward) -> bool:
        if self.dial.accept_reward is None or (self.combiner == "safe_first" and reward.is_gated):
            return False
        return reward.combined >= self.dial.accept_reward

    @property
    def _leader(self) -> ScoredCandidate:
        return self.scored[rank(self.scored, self.combiner)[0]]

    @property
    def progress(self) -> Progress:
        """How far the selection has come."""
        best = self._leader.reward.combined if self.scored else None
        return Progress(len(self.finished), len(self.scored), self.candidates, best)

    def _expire(self) -> None:
        self._is_late = True
        if self.scored:
            self._stop("deadline")

    def _stop(self, reason: Truncation) -> None:
        """Enough is known: everything that has not ended is given up. The first reason counts."""
        if not self.truncated_by and any(index not in self._given_up for index in self._tasks):
            self.truncated_by = reason
            self._give_up(self._tasks, reason)

    def _give_up(self, indices: Iterable[int], reason: AbortReason) -> None:
        going = [index for index in indices if index in self._tasks and index not in self._given_up]
        if going and not self._is_failing:
            self._given_up |= dict.fromkeys(going, reason)
            self._look_away(going)
            self._group.create_task(self._abort({index: self._tasks[index] for index in going}))

    async def _abort(self, going: dict[int, asyncio.Task[None]]) -> None:
        """Stop candidates in their engine, which then tells how far they had come; those being scored, and the silent, are cancelled."""
        sampling = {task: self._handles[index] for index, task in going.items() if index not in self.finished}
        for task in going.values():
            if task not in sampling:
                task.cancel()
        if sampling:
            await asyncio.gather(*(handle.stop() for handle in sampling.values()))
            await asyncio.wait(sampling, timeout=STOP_SECONDS)
            for index, task in going.items():
                if task in sampling and index in self._given_up:
                    task.cancel()

    def _look(self, checkpoint: int, index: int, ids: TokenIds) -> None:
        """A candidate has passed a checkpoint: have what there is of it scored, while it goes on."""
        if index in self._tasks and index not in self._given_up and not self._is_failing:
            task = self._group.create_task(self._weigh(checkpoint, index, ids))
            self._looks[task] = index
            task.add_done_callback(lambda done: self._looks.pop(done, None))

    def _look_away(self, indices: Iterable[int]) -> None:
        """What these candidates were worth on the way is nobody's concern any more."""
        gone = set(indices)
        for task, index in self._looks.items():
            if index in gone:
                task.cancel()

    async def _weigh(self, checkpoint: int, index: int, ids: TokenIds) -> None:
        assert self._rejection
        try:
            reward = await asyncio.shield(self._reward(ids))
            part = ScoredCandidate(Candidate(index, ids, "", "length", len(ids)), reward)
        except CandidateFailed:
            part = None
        self._reject(self._rejection.score(checkpoint, index, part))

    def _reject(self, indices: Iterable[int]) -> None:
        """Give up what still decodes; who has finished meanwhile has been paid for, and competes."""
        self._give_up([index for index in indices if index not in self.finished], "early_rejection")
