"""Budgeted runs over scripted engines: the budget is met exactly, whatever is interrupted, and whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import ScriptedRewardModel, candidate
from tests.live import scripted
from tests.runs import timeless
from tests.server.distill.test_runner import RULES, SeededPolicy, choices, indices, tasks
from tests.server.distill.test_runner import run as exact
from winnow.models.combiner import rank
from winnow.models.errors import EngineDead, RunError
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Message, Prompt
from winnow.server.distill.backends.base import Answered, Backend
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.budget import Allocation, Budget
from winnow.server.distill.expected_gains import OwnGains
from winnow.server.distill.journal import NAME, Journal, read
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Planner
from winnow.server.distill.progress import Meter, Reading
from winnow.server.distill.records import Entry, Problem, Record
from winnow.server.distill.rounds import Rounds, is_complete
from winnow.server.pipeline.request import Request, RequestOptions
from winnow.server.service import Service

K = 12


@pytest.fixture
def seeded(tokenizer: Tokenizer) -> Service:
    return scripted(tokenizer, SeededPolicy())


async def run(
    folder: Path,
    service: Service,
    budget: Budget,
    lines: list[Task | Problem],
    wrap: Callable[[Backend], Backend] = lambda backend: backend,
    **changes: object,
) -> list[Entry]:
    """Spend `budget` over `lines` into the journal of `folder` and return its newest entries."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    chosen = choices(budget=budget, **{"candidates": K, **changes})
    jobs = [line for line in lines if isinstance(line, Task)]
    limits = {task.line: found for task in jobs if (found := chosen.limits(task))}
    backend = InProcess(service, 0.001)
    with Journal(folder) as journal:
        allocation = Allocation(budget, limits, OwnGains())
        meter = Meter(len(lines), len(journal.done))
        planner = Planner(chosen, RULES, backend.is_safety)
        await Rounds(planner, wrap(backend), journal, meter, 8, allocation).run(lambda: lines)
        assert is_complete(Allocation(budget, limits, OwnGains()), journal, [task.line for task in jobs])
        assert meter.read().in_flight == meter.read().candidates_in_flight == 0
    return list(read(folder))


def sizes(entries: list[Entry]) -> dict[int, int]:
    return {entry.line: entry.selection.candidates for entry in entries if isinstance(entry, Record)}


def without_times(entries: list[Entry]) -> list[Entry]:
    return [timeless(entry) if isinstance(entry, Record) else entry for entry in entries]


@pytest.mark.parametrize(
    "budget",
    [Budget(80), Budget(81), Budget(150), Budget(20 * K), Budget(97, start=1, step=3), Budget(60, 3, 5)],
    ids=str,
)
async def test_the_budget_is_met_exactly(budget: Budget, tmp_path: Path, seeded: Service) -> None:
    entries = await run(tmp_path, seeded, budget, [*tasks(20)])
    assert sum(sizes(entries).values()) == budget.candidates
    for entry in entries:
        assert isinstance(entry, Record)
        selection, (arm,) = entry.selection, entry.arms
        k = selection.candidates
        assert indices(entry) == list(range(k))
        assert selection.ranking == rank(selection.scored, "llama2")
        assert arm.candidates == k
        assert arm.waves
        assert (arm.waves.requested, arm.waves.start, arm.waves.step) == (K, min(budget.start, K), budget.step)
        assert selection.requested == K
        assert arm.waves.count == selection.waves == 1 + math.ceil((k - min(budget.start, K)) / budget.step)
        assert arm.waves.stopped_by == selection.stopped_by == ("candidates" if k == K else "gain")
        assert entry.arm_of(selection.winner.candidate) == arm


async def test_the_candidates_are_the_first_ones_of_all_k(tmp_path: Path, seeded: Service) -> None:
    """Candidate k keeps its seed, whichever wave draws it."""
    (tmp_path / "exact").mkdir()
    whole = {entry.line: entry for entry in await exact(tmp_path / "exact", seeded, tasks(15), candidates=K)}
    for entry in await run(tmp_path / "budget", seeded, Budget(101), [*tasks(15)]):
        full = whole[entry.line]
        assert isinstance(entry, Record)
        assert isinstance(full, Record)
        assert entry.selection.scored == full.selection.scored[: entry.selection.candidates]


async def test_waves_go_where_the_rewards_are_low_and_scatter(tmp_path: Path, tokenizer: Tokenizer) -> None:
    class Uneven(SeededPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            await asyncio.sleep(0)
            return candidate(index, (len(prompt.messages[-1].content), index))

    def reward(ids: tuple[int, ...]) -> float:
        length, index = ids
        return 8.0 if length < 20 else -2.0 + index / 3

    service = scripted(tokenizer, Uneven(), ScriptedRewardModel(reward), ScriptedRewardModel(reward))
    jobs = [replace(task, messages=(Message("user", "Why? " * (1 + 6 * (task.line % 2))),)) for task in tasks(20)]
    found = sizes(await run(tmp_path, service, Budget(120), [*jobs]))
    assert {line: k for line, k in found.items() if line % 2} == dict.fromkeys(range(1, 20, 2), 8)
    assert {k for line, k in found.items() if not line % 2} == {4}


class Mortal:
    """A backend that dies after some calls."""

    def __init__(self, backend: Backend, calls: int) -> None:
        self._backend = backend
        self._calls = calls

    async def __call__(self, request: Request, first: int = 0) -> Answered:
        self._calls -= 1
        if self._calls < 0:
            raise EngineDead("the policy engine is gone")
        return await self._backend(request, first)


@pytest.mark.parametrize("deaths", [[0], [3], [19, 2], [24, 1, 9], [30], [37, 0, 1], [60]])
async def test_an_interrupted_run_ends_as_an_undisturbed_one(
    deaths: list[int], tmp_path: Path, seeded: Service
) -> None:
    budget, lines = Budget(163), [*tasks(20), Problem(21, None, "f", 21, "input", "invalid_json", "no JSON")]
    undisturbed = await run(tmp_path / "whole", seeded, budget, lines)
    for calls in deaths:
        with contextlib.suppress(EngineDead):
            await run(tmp_path / "parts", seeded, budget, lines, lambda backend, calls=calls: Mortal(backend, calls))
    entries = await run(tmp_path / "parts", seeded, budget, lines)
    assert without_times(entries) == without_times(undisturbed)
    assert sum(sizes(entries).values()) == budget.candidates


async def test_a_journal_cut_off_anywhere_leads_to_the_same_end(tmp_path: Path, seeded: Service) -> None:
    """Like a kill at that moment: what a write has reached the file with is all that a process leaves."""
    budget, lines = Budget(130), [*tasks(16)]
    undisturbed = await run(tmp_path / "whole", seeded, budget, lines)
    journal = (tmp_path / "whole" / NAME).read_bytes()
    for part in range(0, len(journal), len(journal) // 9):
        folder = tmp_path / str(part)
        folder.mkdir()
        (folder / NAME).write_bytes(journal[:part])
        assert without_times(await run(folder, seeded, budget, lines)) == without_times(undisturbed)


async def test_lines_at_fault_leave_their_part_to_the_others(tmp_path: Path, seeded: Service) -> None:
    long = replace(tasks(1)[0], messages=(Message("user", "word " * 5000),))
    many = replace(tasks(2)[1], options=RequestOptions(candidates=2, n=3))
    entries = await run(tmp_path, seeded, Budget(50), [long, many, *tasks(6)[2:]])
    codes = [entry.code if isinstance(entry, Problem) else "" for entry in entries]
    assert codes == ["context_length_exceeded", "invalid_request", "", "", "", ""]
    assert sizes(entries) == dict.fromkeys(range(3, 7), K)  # 48: they cannot take more


async def test_failed_candidates_count(tmp_path: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    """A prompt whose first wave fails altogether has used it up; a later wave that fails is one of failures."""

    def reward(ids: tuple[int, ...]) -> float:
        line, index = ids
        return math.nan if line == 1 or (line == 2 and index >= 4) else float(index % 5 - line)

    class ByLine(SeededPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            await asyncio.sleep(0)
            return candidate(index, (len(prompt.messages[-1].content), index))

    service = scripted(tokenizer, ByLine(), ScriptedRewardModel(reward), ScriptedRewardModel(reward))
    jobs = [replace(task, messages=(Message("user", "x" * task.line),)) for task in tasks(5)]
    entries = await run(tmp_path, service, Budget(4 + 4 * K), [*jobs])
    assert isinstance(entries[0], Problem)
    assert entries[0].message.startswith("none of 4 candidates")
    assert sizes(entries) == dict.fromkeys(range(2, 6), K)
    second = entries[1]
    assert isinstance(second, Record)
    assert indices(second) == [0, 1, 2, 3]
    assert [failure.index for failure in second.selection.failures] == list(range(4, K))
    assert "of the budget's" not in caplog.text
    await run(tmp_path / "more", service, Budget(5 * K), [*jobs])
    assert "52 of the budget's 60 candidates were sampled" in caplog.text


async def test_lines_have_their_own_k_and_n(tmp_path: Path, seeded: Service) -> None:
    wide = replace(tasks(1)[0], options=RequestOptions(candidates=20))
    narrow = replace(tasks(2)[1], options=RequestOptions(candidates=2))
    greedy = replace(tasks(3)[2], options=RequestOptions(temperature=0.0))
    several = replace(tasks(4)[3], options=RequestOptions(n=7))
    entries = await run(tmp_path, seeded, Budget(20 + 2 + 1 + K), [wide, narrow, greedy, several])
    assert sizes(entries) == {1: 20, 2: 2, 3: 1, 4: K}
    entries = await run(tmp_path / "least", seeded, Budget(4 + 2 + 1 + 7), [wide, narrow, greedy, several])
    assert sizes(entries) == {1: 4, 2: 2, 3: 1, 4: 7}


async def test_an_input_that_has_lost_rows_is_refused(tmp_path: Path, seeded: Service) -> None:
    taken = iter([tasks(10), [], []])
    chosen = choices(budget=Budget(80), candidates=K)
    backend = InProcess(seeded, 0.001)
    limits = {task.line: chosen.limits(task) for task in tasks(10)}
    with Journal(tmp_path) as journal:
        allocation = Allocation(Budget(80), limits, OwnGains())  # type: ignore[arg-type]
        rounds = Rounds(Planner(chosen, RULES, backend.is_safety), backend, journal, Meter(10), 4, allocation)
        with pytest.raises(RunError, match="lost rows"):
            await rounds.run(lambda: next(taken))


async def test_progress_shows_the_round_and_the_candidates(tmp_path: Path, seeded: Service) -> None:
    seen: list[Reading] = []

    class Seen(Meter):
        def under_way(self, candidates: int):  # type: ignore[no-untyped-def]
            seen.append(self.read())
            return super().under_way(candidates)

    chosen, backend = choices(budget=Budget(120), candidates=K), InProcess(seeded, 0.001)
    limits = {task.line: chosen.limits(task) for task in tasks(12)}
    with Journal(tmp_path) as journal:
        allocation, meter = Allocation(Budget(120), limits, OwnGains()), Seen(12)  # type: ignore[arg-type]
        planner = Planner(chosen, RULES, backend.is_safety)
        await Rounds(planner, backend, journal, meter, 1, allocation).run(lambda: tasks(12))
    assert [now.sampled for now in seen] == sorted(now.sampled or 0 for now in seen)
    assert {now.budget for now in seen} == {120}
    assert [now.round for now in seen[:12]] == [0] * 12
    rounds = [now.round or 0 for now in seen]
    assert rounds == sorted(rounds)
    assert max(rounds) >= 2
    last = meter.read()
    assert (last.sampled, last.done, last.total) == (120, 12, 12)
