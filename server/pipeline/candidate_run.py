"""One run of K candidates, sampled and scored concurrently, until all have finished or enough is known.

They start all at once, or in waves. A wave that was started ahead of the decision is invisible until it is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field

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
    StoppedBy,
    Truncation,
)
from winnow.server.aio import cancel, retrieve_exception
from winnow.server.pipeline.early_stopping import EarlyStopping, RejectionRounds
from winnow.server.pipeline.partial_scores import PartialScores
from winnow.server.pipeline.room import UNBOUNDED, Room
from winnow.server.pipeline.standing import Outcome, Standing
from winnow.server.pipeline.waves import ExpectedGain, WaveBook, Waves, unneeded

STOP_SECONDS = 0.02
"""Seconds that a stopped candidate has to report its token count; then it is cancelled, and counts 0 tokens."""

UNSCORED_SHARE = 0.5
"""Largest share of a wave's candidates without a score at which the next is started ahead of the decision."""


@dataclass(slots=True)
class CandidateRun:
    """The state of K candidates; `run` samples and scores them.

    `sample` is the policy's method and `rate` the reward models', bound to one prompt. Equal texts share one reward.
    With `waves`, `is_safety` tells whether it is a safety prompt once a candidate has been scored, and `room` has the
    places of all waves but the first.
    """

    sample: Callable[[int, CandidateHandle | None], Awaitable[Candidate]]
    rate: Callable[[str], Coroutine[None, None, Reward]]
    candidates: int
    combiner: CombinerName
    early_stopping: EarlyStopping
    on_progress: Callable[[Progress], None] | None = None
    empty_last: bool = True
    waves: Waves | None = None
    expected_gain: ExpectedGain | None = None
    is_safety: Callable[[], bool] = lambda: False
    room: Room = UNBOUNDED
    stopped_by: StoppedBy | None = None
    truncated_by: Truncation | None = None
    finished: dict[int, Candidate] = field(default_factory=dict)
    standing: Standing = field(init=False)
    _rewards: dict[str, asyncio.Task[Reward]] = field(default_factory=dict)
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _handles: dict[int, CandidateHandle] = field(default_factory=dict)
    _abort_reasons: dict[int, AbortReason] = field(default_factory=dict)
    _partial_scores: PartialScores | None = None
    _offsets: dict[int, float] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)
    book: WaveBook = field(init=False)
    _is_late: bool = False
    _is_failing: bool = False
    """The task group is being cancelled: no task may be started in it any more."""
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    def __post_init__(self) -> None:
        self.standing = Standing(self.combiner, self.empty_last)
        self.book = WaveBook(tuple(self.waves.ends(self.candidates)) if self.waves else (self.candidates,))

    async def run(self) -> None:
        """Sample and score until every candidate has finished, failed or been aborted, or enough waves have been drawn.

        Cancelling aborts those that have not finished.

        Raises:
            EngineDead: an engine's process has died.
        """
        if rejection := self.early_stopping.early_rejection:
            rounds = RejectionRounds(rejection, self.candidates, self.combiner)
            self._partial_scores = PartialScores(rounds, self._reward, self._reject, self.empty_last)
        timer: asyncio.TimerHandle | None = None
        deadline = self.early_stopping.deadline
        try:
            async with self._group:
                self._start(range(self.book.counted))
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

    def _start(self, indices: range) -> None:
        offset = time.perf_counter() - self._started
        for index in indices:
            self._offsets[index] = offset
            self._tasks[index] = self._group.create_task(self._candidate(index))

    def finished_after(self, candidate: Candidate) -> float:
        """Return the seconds from the start of the run until a candidate had been sampled."""
        return self._offsets[candidate.index] + candidate.seconds

    async def _candidate(self, index: int) -> None:
        """Sample and score one candidate."""
        try:
            outcome = await self._outcome(index)
        except WinnowError:
            self._is_failing = True
            raise
        self._end(index, outcome)

    async def _outcome(self, index: int) -> Outcome:
        try:
            candidate = await self.sample(index, self._handle(index))
            self.finished[index] = candidate
            if self._abort_reasons.get(index) == "early_rejection":
                del self._abort_reasons[index]  # it finished before the abort, so it is ranked
            self._look_ahead()
            # Shielded: a sibling with the same answer may still need the score.
            return ScoredCandidate(candidate, await asyncio.shield(self._reward(candidate.text)))
        except CandidateFailed as failure:
            return Failure(index, str(failure))
        except CandidateStopped as stopped:
            return Aborted(index, self._abort_reasons[index], stopped.tokens)
        except asyncio.CancelledError:
            if index not in self._abort_reasons:
                self._is_failing = True
                raise
            tokens = self.finished[index].tokens if index in self.finished else 0
            return Aborted(index, self._abort_reasons[index], tokens)

    def _handle(self, index: int) -> CandidateHandle | None:
        if not self.early_stopping.is_enabled and index < self.book.counted:
            return None
        rejection = self.early_stopping.early_rejection
        handle = self._handles[index] = CandidateHandle()
        if rejection:
            handle.checkpoints = rejection.at_tokens
            handle.at_checkpoint = lambda checkpoint, text: self._score_partially(checkpoint, index, text)
        return handle

    def _score_partially(self, checkpoint: int, index: int, text: str) -> None:
        if index in self._tasks and index not in self._abort_reasons and not self._is_failing:
            assert self._partial_scores
            self._partial_scores.start(self._group, checkpoint, index, text)

    def _reward(self, text: str) -> asyncio.Task[Reward]:
        if text not in self._rewards:
            self._rewards[text] = asyncio.create_task(self.rate(text))
            retrieve_exception(self._rewards[text])
        return self._rewards[text]

    def _end(self, index: int, outcome: Outcome) -> None:
        """Note that a candidate has finished, failed or been aborted."""
        del self._tasks[index]
        if index < self.book.counted:
            self._count(index, outcome)
            self._advance()
        elif self.stopped_by:
            self.standing.add(unneeded(index, outcome))
        else:
            self.book.hold(index, outcome)

    def _count(self, index: int, outcome: Outcome) -> None:
        """Count the outcome of a candidate of the waves that are needed, and stop the run if that is enough."""
        self.standing.add(outcome)
        if self.on_progress:
            self.on_progress(self.progress)
        if self._partial_scores:
            competes = isinstance(outcome, ScoredCandidate)
            self._partial_scores.end(index, competes=competes, is_last=not self._tasks)
        if self._is_accepted:
            self._truncate("accept_reward")
        elif self._is_late and self.standing.answer:
            self._truncate("deadline")

    def _advance(self) -> None:
        if self.standing.ended == self.book.counted:
            self._end_wave()
        else:
            self._look_ahead()

    def _look_ahead(self) -> None:
        """Start the next wave if this one has been sampled, nothing says yet that it is enough, and there is room."""
        book = self.book
        if not book.next or book.is_ahead or self.stopped_by or self.truncated_by or self._is_late:
            return
        if self._is_failing or any(index not in self.finished for index in self._tasks):
            return
        if len(self._tasks) > UNSCORED_SHARE * book.size:
            return
        if not self._enough and self.room.take_ahead(len(book.next)):
            book.is_ahead = True
            self._start(book.next)

    def _end_wave(self) -> None:
        """Decide at the end of a wave whether there is another, which may have been started already."""
        self.stopped_by = self._enough if self.book.next else "candidates"
        if self._is_failing:
            return
        if self.stopped_by:
            self.standing.aborted += self.book.drop_next()
            self._abort(self._tasks, "adaptive")
        elif not self.book.is_ahead:
            self._group.create_task(self._next_wave())
        else:
            self.room.release_wave()
            for index, outcome in self.book.count_next():
                self._count(index, outcome)
            self._advance()

    async def _next_wave(self) -> None:
        """Wait for room, and start the next wave."""
        drawn = self.book.counted if self.standing.scored else 0
        self.stopped_by = await self.room.next_wave(len(self.book.next), drawn)
        if not self.stopped_by:
            indices = self.book.next
            self.book.count_next()
            self._start(indices)

    @property
    def _enough(self) -> StoppedBy | None:
        """The reason to draw no further wave, as far as it is known: a better candidate changes nothing about it."""
        if self._is_accepted:
            return "reward"
        if self._is_late and self.standing.scored:
            return "deadline"
        best = self.standing.good
        if not self.waves or best is None:
            return None
        seen, step = self.book.counted, len(self.book.next)
        return self.waves.stop(best, seen, step, is_safety=self.is_safety(), expected=self.expected_gain)

    @property
    def _is_accepted(self) -> bool:
        accepted = self.early_stopping.accept_reward
        return accepted is not None and (best := self.standing.good) is not None and best >= accepted

    @property
    def progress(self) -> Progress:
        """The progress so far."""
        leader, counted = self.standing.leader, self.book.counted
        finished = sum(index < counted for index in self.finished)
        return Progress(finished, len(self.standing.scored), counted, leader.reward.combined if leader else None)

    def _expire(self) -> None:
        self._is_late = True
        if self.standing.answer:
            self._truncate("deadline")

    def _truncate(self, reason: Truncation) -> None:
        """Abort every unfinished candidate; the first reason counts."""
        counted = [index for index in self._tasks if index < self.book.counted]
        if not self.truncated_by and any(index not in self._abort_reasons for index in counted):
            self.truncated_by = reason
            self._abort(counted, reason)

    def _abort(self, indices: Iterable[int], reason: AbortReason) -> None:
        unfinished = [index for index in indices if index in self._tasks and index not in self._abort_reasons]
        if unfinished and not self._is_failing:
            self._abort_reasons |= dict.fromkeys(unfinished, reason)
            if self._partial_scores:
                self._partial_scores.cancel(unfinished)
            self._group.create_task(self._stop_in_engine({index: self._tasks[index] for index in unfinished}))

    async def _stop_in_engine(self, unfinished: dict[int, asyncio.Task[None]]) -> None:
        """Stop candidates in their engine, which reports their tokens; cancel those being scored or slow to stop."""
        sampling = {task: self._handles[index] for index, task in unfinished.items() if index not in self.finished}
        for index, task in unfinished.items():
            if task not in sampling and index in self._abort_reasons:
                task.cancel()
        if sampling:
            await asyncio.gather(*(handle.stop() for handle in sampling.values()))
            await asyncio.wait(sampling, timeout=STOP_SECONDS)
            for index, task in unfinished.items():
                if task in sampling and index in self._abort_reasons:
                    task.cancel()

    def _reject(self, indices: Iterable[int]) -> None:
        """Abort rejected candidates; those that have finished meanwhile compete, since their tokens have been spent."""
        self._abort([index for index in indices if index not in self.finished], "early_rejection")
