"""The loop of a budgeted run: a first wave for every prompt, then rounds of further waves where they gain most.

A wave ends with an entry in the journal that has all of the prompt's candidates so far and replaces the one before. The
rounds follow from the rewards (`winnow.server.distill.budget`), so a run that was interrupted within one goes on with
the waves that are missing. Texts are in the journal alone; a later wave reads its prompt's entry again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from winnow.models.errors import NoScoredCandidate, RunError
from winnow.server.distill.backends.base import Answered, Backend
from winnow.server.distill.budget import Allocation
from winnow.server.distill.joining import Outcome, continued
from winnow.server.distill.journal import Journal
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Plan, Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.runner import Runner, each
from winnow.server.distill.traces import Traces

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rounds:
    """A run with a budget, whose rounds are those of `allocation`; the rest is as in `Runner`."""

    planner: Planner
    backend: Backend
    journal: Journal
    meter: Meter
    in_flight: int
    allocation: Allocation

    async def run(self, lines: Callable[[], Iterable[Task | Problem]]) -> None:
        """Sample until the budget is used up; `lines` reads the input, anew for every round.

        Raises:
            RunError, EngineDead: as `Runner.run`.
        """
        traces, budget = Traces(self.journal.entries()), self.allocation.budget.candidates
        self.meter.begin_round(0, traces.sampled, budget)
        first = Runner(self._first_wave, self.backend, self.journal, self.meter, self.in_flight, traces.add)
        await first.run(lines())
        while pending := self.allocation.pending(traces):
            missing = sum(target - traces.prompts[line].candidates for line, target in pending.items())
            self.meter.begin_round(self.allocation.round, self.allocation.spent - missing, budget)

            async def sample(task: Task, pending: dict[int, int] = pending) -> None:
                record = await self._next_wave(task, pending[task.line])
                self.journal.append(record)
                traces.add(record)

            def is_next(line: Task | Problem, pending: dict[int, int] = pending) -> Task | None:
                return line if isinstance(line, Task) and line.line in pending else None

            await each(lines(), is_next, sample, self.in_flight)
            if any(traces.prompts[line].candidates < target for line, target in pending.items()):
                raise RunError("the input has lost rows since the run began; give it as it was")
        if self.allocation.spent < budget:
            logger.warning(
                "%d of the budget's %d candidates were sampled: lines without answers left too few prompts for more",
                self.allocation.spent, budget,
            )  # fmt: skip

    async def _first_wave(self, task: Task) -> Plan:
        return (await self.planner.plan(task)).first_wave(self.allocation.budget)

    async def _next_wave(self, task: Task, target: int) -> Record:
        """Return the record of a prompt with as many candidates as the round's `target`."""
        record = self.journal.entry(task.line)
        assert isinstance(record, Record)
        (request,) = self.planner.tagged(task, record.selection.prompt.is_safety).requests
        first = record.selection.candidates
        wave = replace(request, candidates=target - first, least=target - first)
        with self.meter.under_way(wave.candidates):
            outcome: Outcome
            try:
                outcome = await self.backend(wave, first)
            except NoScoredCandidate as error:
                outcome = error
        self.meter.count_wave(outcome.selection.scored if isinstance(outcome, Answered) else (), wave.candidates)
        return continued(record, outcome, wave.candidates)


def is_complete(allocation: Allocation, journal: Journal, tasks: Collection[int]) -> bool:
    """Whether nothing is left to sample of a budgeted run."""
    return journal.done.issuperset(tasks) and not allocation.pending(Traces(journal.entries()))
