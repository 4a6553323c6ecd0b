"""The offline loop: lines in, journal entries out, many prompts in flight and no barrier between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace

from winnow.models.combiner import rank
from winnow.models.errors import NoScoredCandidate, RequestError, WinnowError, root_cause
from winnow.models.types import Failure, ScoredCandidate, Selection, Timings
from winnow.server.distill.backends import Answered, Backend
from winnow.server.distill.journal import Journal
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Plan
from winnow.server.distill.progress import Meter
from winnow.server.distill.records import Entry, Problem, ProblemKind, Record
from winnow.server.pipeline.request import Request

YIELD_EVERY = 256
"""Lines after which the loop yields to other tasks: skipping finished or bad lines waits for nothing."""


@dataclass(frozen=True, slots=True)
class Runner:
    """One pass over the input: `plan` plans each line, `backend` answers it, at most `in_flight` lines at once."""

    plan: Callable[[Task], Awaitable[Plan]]
    backend: Backend
    journal: Journal
    meter: Meter
    in_flight: int

    async def run(self, lines: Iterable[Task | Problem]) -> None:
        """Answer every line that the journal does not have yet; cancelling loses only the prompts in flight.

        Raises:
            RunError: the journal cannot be written, the input cannot be read on, or the server is gone.
            EngineDead: an engine has died.
        """
        places = asyncio.Semaphore(self.in_flight)
        try:
            async with asyncio.TaskGroup() as group:
                for count, line in enumerate(lines):
                    if not count % YIELD_EVERY:
                        await asyncio.sleep(0)
                    if line.line in self.journal.done:
                        continue
                    if isinstance(line, Problem):
                        self._finish(line)
                    else:
                        await places.acquire()
                        group.create_task(self._answer(line, places))
        except* WinnowError as errors:
            raise root_cause(errors) from None

    async def _answer(self, task: Task, places: asyncio.Semaphore) -> None:
        try:
            self._finish(await self._entry(task))
        finally:
            places.release()

    def _finish(self, entry: Entry) -> None:
        self.journal.append(entry)
        self.meter.count(entry)

    async def _entry(self, task: Task) -> Entry:
        try:
            plan = await self.plan(task)
            with self.meter.under_way(plan.candidates):
                outcomes = await self._outcomes(plan)
        except RequestError as error:
            return _problem(task, "input", error.code, str(error))
        except NoScoredCandidate as error:
            return _problem(task, "failed", "no_scored_candidate", str(error))
        originals = [outcome for outcome, arm in zip(outcomes, plan.arms, strict=True) if not arm.is_context_distilled]
        # A distilled answer is kept only if it beats an original one, so there must be an original one.
        failed = [outcome for outcome in originals if isinstance(outcome, NoScoredCandidate)]
        if len(failed) == len(originals):
            return _problem(task, "failed", "no_scored_candidate", str(failed[0]))
        return _record(plan, outcomes)

    async def _outcomes(self, plan: Plan) -> list[Answered | NoScoredCandidate]:
        """Return the outcome of each arm; all arms are sampled at once."""
        try:
            async with asyncio.TaskGroup() as group:
                arms = [group.create_task(self._outcome(request)) for request in plan.requests]
        except* WinnowError as errors:
            raise root_cause(errors) from None
        return [arm.result() for arm in arms]

    async def _outcome(self, request: Request) -> Answered | NoScoredCandidate:
        try:
            return await self.backend(request)
        except NoScoredCandidate as error:
            return error


def _problem(task: Task, kind: ProblemKind, code: str, message: str) -> Problem:
    return Problem(task.line, task.id, task.file, task.file_line, kind, code, message)


def _record(plan: Plan, outcomes: Sequence[Answered | NoScoredCandidate]) -> Record:
    task = plan.task
    return Record(
        line=task.line,
        id=task.id,
        digest=task.digest,
        category=task.category,
        mask_history=plan.mask_history,
        n=plan.requests[0].n,
        arms=plan.arms,
        prompt_tokens=max(outcome.prompt_tokens for outcome in outcomes if isinstance(outcome, Answered)),
        selection=_joined(plan, outcomes),
    )


def _joined(plan: Plan, outcomes: Sequence[Answered | NoScoredCandidate]) -> Selection:
    """Return the arms' candidates as one selection: numbered consecutively over the arms, and ranked together."""
    scored: list[ScoredCandidate] = []
    failures: list[Failure] = []
    selections: list[Selection] = []
    first = 0
    for arm, outcome in zip(plan.arms, outcomes, strict=True):
        if isinstance(outcome, Answered):
            selections.append(outcome.selection)
            for item in outcome.selection.scored:
                candidate = replace(item.candidate, index=first + item.candidate.index)
                scored.append(replace(item, candidate=candidate))
        arm_failures = outcome.selection.failures if isinstance(outcome, Answered) else outcome.failures
        failures += (replace(failure, index=first + failure.index) for failure in arm_failures)
        first += arm.candidates
    return replace(
        selections[0],
        scored=tuple(scored),
        ranking=rank(scored, selections[0].combiner, empty_last=selections[0].empty_last),
        failures=tuple(failures),
        timings=_longest([selection.timings for selection in selections]),
        requested=sum(request.requested for request in plan.requests),
        reduced_by="temperature" if any(request.is_reduced for request in plan.requests) else None,
    )


def _longest(timings: Sequence[Timings]) -> Timings:
    """Return the longest time of each phase: the arms ran at once."""
    return Timings(*map(max, zip(*map(astuple, timings), strict=True)))
