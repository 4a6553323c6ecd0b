"""The offline pipeline: lines in, journal entries out, many prompts in flight and no barrier between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from winnow.models.combiner import rank
from winnow.models.errors import RequestError, WinnowError, root_cause
from winnow.models.types import Failure, ScoredCandidate
from winnow.server.distill.backends import Way
from winnow.server.distill.journal import Journal
from winnow.server.distill.meter import Meter
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Drawn, Plan
from winnow.server.distill.records import Entry, Problem, ProblemKind, Record, ScoredAnswer

BREATH = 256
"""Lines after which others get a turn: passing over what is done already, or bad, waits for nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the input. `plan` says what is sampled for a line, `way` has it sampled and scored.

    `in_flight` bounds how many prompts are under way at once.
    """

    plan: Callable[[Task], Plan]
    way: Way
    journal: Journal
    meter: Meter
    in_flight: int

    async def __call__(self, lines: Iterable[Task | Problem]) -> None:
        """Answer every line that the journal does not have yet; cancelling it loses only what is under way.

        Raises:
            RunError: the journal cannot be written, the input cannot be read on, or the server is gone.
            EngineDead: an engine has died.
        """
        places = asyncio.Semaphore(self.in_flight)
        try:
            async with asyncio.TaskGroup() as group:
                for count, line in enumerate(lines):
                    if not count % BREATH:
                        await asyncio.sleep(0)
                    if line.line in self.journal.done:
                        continue
                    if isinstance(line, Problem):
                        self._finish(line)
                    else:
                        await places.acquire()
                        group.create_task(self._do(line, places))
        except* WinnowError as errors:
            raise root_cause(errors) from None

    async def _do(self, task: Task, places: asyncio.Semaphore) -> None:
        try:
            self._finish(await self._entry(task))
        finally:
            places.release()

    def _finish(self, entry: Entry) -> None:
        self.journal.append(entry)
        self.meter.count(entry)

    async def _entry(self, task: Task) -> Entry:
        started = time.perf_counter()
        try:
            plan = self.plan(task)
            with self.meter.under_way(plan.candidates):
                drawn = await self._draw(plan)
        except RequestError as error:
            return _problem(task, "input", error.code, str(error))
        # A distilled answer that has no original one to beat is none.
        originals = [part for part, arm in zip(drawn, plan.arms, strict=True) if arm.preprompt is None]
        if not any(part.scored for part in originals):
            return _problem(task, "failed", "no_scored_candidate", originals[0].failures[0].reason)
        return _record(plan, drawn, time.perf_counter() - started)

    async def _draw(self, plan: Plan) -> list[Drawn]:
        try:
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(self.way(draw)) for draw in plan.draws]
        except* WinnowError as errors:
            raise root_cause(errors) from None
        return [part.result() for part in parts]


def _problem(task: Task, kind: ProblemKind, code: str, message: str) -> Problem:
    return Problem(task.line, task.id, task.file, task.file_line, kind, code, message)


def _record(plan: Plan, drawn: list[Drawn], seconds: float) -> Record:
    """The arms' candidates as those of one selection: numbered on, and ranked together."""
    scored: list[ScoredCandidate] = []
    failures: list[Failure] = []
    arms: list[int] = []
    first = 0
    for place, (arm, part) in enumerate(zip(plan.arms, drawn, strict=True)):
        for item in part.scored:
            scored.append(replace(item, candidate=replace(item.candidate, index=first + item.candidate.index)))
            arms.append(place)
        failures += (replace(failure, index=first + failure.index) for failure in part.failures)
        first += arm.candidates
    task = plan.task
    return Record(
        line=task.line,
        id=task.id,
        digest=task.digest,
        messages=plan.messages,
        is_safety=plan.is_safety,
        category=task.category,
        silent=plan.silent,
        n=plan.n,
        combiner=plan.combiner,
        arms=plan.arms,
        answers=tuple(
            ScoredAnswer(
                item.candidate.index,
                arm,
                item.candidate.text,
                item.candidate.finish_reason,
                item.candidate.tokens,
                item.reward,
            )
            for arm, item in zip(arms, scored, strict=True)
        ),
        ranking=rank(scored, plan.combiner),
        failures=tuple(failures),
        prompt_tokens=max(part.prompt_tokens for part in drawn),
        seconds=seconds,
    )
