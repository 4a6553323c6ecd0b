"""The offline loop: lines in, journal entries out, many prompts in flight and no barrier between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from winnow.models.errors import NoScoredCandidate, RequestError, WinnowError, root_cause
from winnow.server.distill.backends.base import Answered, Backend
from winnow.server.distill.joining import record_of
from winnow.server.distill.journal import Journal
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Plan
from winnow.server.distill.progress import Meter
from winnow.server.distill.records import Entry, Problem, ProblemKind
from winnow.server.pipeline.request import Request

YIELD_EVERY = 256
"""Lines after which the loop yields to other tasks: skipping finished or bad lines waits for nothing."""


@dataclass(frozen=True, slots=True)
class Runner:
    """One pass over the input: `plan` plans each line, `backend` answers it, at most `in_flight` lines at once.

    `note` is told each entry once it is in the journal.
    """

    plan: Callable[[Task], Awaitable[Plan]]
    backend: Backend
    journal: Journal
    meter: Meter
    in_flight: int
    note: Callable[[Entry], object] = lambda _: None

    async def run(self, lines: Iterable[Task | Problem]) -> None:
        """Answer every line that the journal does not have yet; cancelling loses only the prompts in flight.

        Raises:
            RunError: the journal cannot be written, the input cannot be read on, or the server is gone.
            EngineDead: an engine has died.
        """
        await each(lines, self._unanswered, self._answer, self.in_flight)

    def _unanswered(self, line: Task | Problem) -> Task | None:
        """Return the task if it needs an answer; a problem is written down."""
        if line.line in self.journal.done:
            return None
        if isinstance(line, Problem):
            self._finish(line)
            return None
        return line

    async def _answer(self, task: Task) -> None:
        self._finish(await self._entry(task))

    def _finish(self, entry: Entry) -> None:
        self.journal.append(entry)
        self.meter.count(entry)
        self.note(entry)

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
        return record_of(plan, outcomes)

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


async def each(
    lines: Iterable[Task | Problem],
    wanted: Callable[[Task | Problem], Task | None],
    work: Callable[[Task], Awaitable[None]],
    in_flight: int,
) -> None:
    """Do the `work` for each task that is `wanted` of a line, at most `in_flight` at once.

    Lines are read as there is room.

    Raises:
        WinnowError: as the work does; the rest is cancelled.
    """
    places = asyncio.Semaphore(in_flight)

    async def placed(task: Task) -> None:
        try:
            await work(task)
        finally:
            places.release()

    try:
        async with asyncio.TaskGroup() as group:
            for count, line in enumerate(lines):
                if not count % YIELD_EVERY:
                    await asyncio.sleep(0)
                if task := wanted(line):
                    await places.acquire()
                    group.create_task(placed(task))
    except* WinnowError as errors:
        raise root_cause(errors) from None


def _problem(task: Task, kind: ProblemKind, code: str, message: str) -> Problem:
    return Problem(task.line, task.id, task.file, task.file_line, kind, code, message)
