"""Offline runs in waves: exact best-of-k, k by a prompt's own candidates alone, and the same after an interruption."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.live import scripted
from tests.server.distill.test_rounds import without_times
from tests.server.distill.test_runner import RULES, SeededPolicy, choices, indices, run, tasks
from winnow.models.errors import EngineDead, RunError
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.budget import Budget
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.plans import Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.records import Entry, Problem, Record
from winnow.server.distill.runner import Runner
from winnow.server.pipeline.request import RequestOptions
from winnow.server.pipeline.waves import Waves
from winnow.server.service import Service

K = 12


@pytest.fixture
def seeded(tokenizer: Tokenizer) -> Service:
    return scripted(tokenizer, SeededPolicy())


def records(entries: list[Entry]) -> list[Record]:
    assert not any(isinstance(entry, Problem) for entry in entries)
    return [entry for entry in entries if isinstance(entry, Record)]


def expected_k(whole: Record, waves: Waves) -> int:
    """The first wave's end at which the best of the candidates so far has the reward."""
    rewards = [item.reward.combined for item in whole.selection.scored]
    assert waves.reward
    return next((end for end in waves.ends(K) if max(rewards[:end]) >= waves.reward), K)


@given(
    start=st.integers(1, K),
    step=st.integers(1, K),
    reward=st.sampled_from([0.05, 0.3, 0.5, 0.74, 0.89, 0.96, 1.0]),
    in_flight=st.integers(1, 9),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_k_follows_from_the_prompts_own_candidates(
    start: int, step: int, reward: float, in_flight: int, tmp_path_factory: pytest.TempPathFactory, seeded: Service
) -> None:
    folder, waves = tmp_path_factory.mktemp("runs"), Waves(start, step, reward=reward)
    (folder / "exact").mkdir()
    (folder / "waves").mkdir()
    exact = records(await run(folder / "exact", seeded, tasks(8), candidates=K))
    found = records(await run(folder / "waves", seeded, tasks(8), in_flight, candidates=K, waves=waves))
    for entry, whole in zip(found, exact, strict=True):
        k = expected_k(whole, waves)
        selection, (arm,) = entry.selection, entry.arms
        assert selection.scored == whole.selection.scored[:k]
        assert selection.candidates == arm.candidates == k
        assert selection.requested == K
        assert not selection.aborted
        assert arm.waves
        assert (arm.waves.requested, arm.waves.start, arm.waves.step) == (K, start, step)
        assert arm.waves.count == selection.waves == list(waves.ends(K)).index(k) + 1
        is_reached = selection.winner.reward.combined >= reward
        assert arm.waves.stopped_by == selection.stopped_by == ("reward" if is_reached and k < K else "candidates")


@pytest.mark.parametrize("after", [0, 9, 40, 70])
async def test_an_interrupted_run_resumes_to_the_same_end(
    after: int, tmp_path: Path, tokenizer: Tokenizer, seeded: Service
) -> None:
    class Mortal(SeededPolicy):
        calls = 0

        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            self.calls += 1
            if self.calls > after:
                raise EngineDead("the policy engine is gone")
            return await super().sample(prompt, sampling, index)

    waves = Waves(2, 3, reward=0.85)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = await run(tmp_path / "whole", seeded, tasks(12), candidates=K, waves=waves)
    assert len({entry.selection.candidates for entry in records(whole)}) > 1
    with contextlib.suppress(EngineDead):
        await run(tmp_path / "parts", scripted(tokenizer, Mortal()), tasks(12), 3, candidates=K, waves=waves)
    parts = await run(tmp_path / "parts", seeded, tasks(12), candidates=K, waves=waves)
    assert without_times(parts) == without_times(whole)


async def test_a_line_has_waves_of_its_own_or_none(tmp_path: Path, seeded: Service) -> None:
    own = replace(tasks(1)[0], options=RequestOptions(adaptive=Waves(3, 1, reward=0.001)))
    none = replace(tasks(2)[1], options=RequestOptions(adaptive=False))
    several = replace(tasks(3)[2], options=RequestOptions(n=5))
    for name, waves in (("run", Waves(1, 1, reward=0.001)), ("lines", None)):
        (tmp_path / name).mkdir()
        found = records(await run(tmp_path / name, seeded, [own, none, several], candidates=K, waves=waves))
        sizes = [entry.selection.candidates for entry in found]
        assert sizes == ([3, K, 5] if waves else [3, K, K])
        assert found[1].selection.waves is found[1].arms[0].waves is None


async def test_each_arm_adapts_by_itself(tmp_path: Path, seeded: Service) -> None:
    """Its waves end by its own candidates; the numbers go on from arm to arm."""
    changes = {"candidates": 8, "temperatures": (0.7, 1.0, 1.3), "sweep": True, "context_distillation": True}
    waves = Waves(2, 2, reward=0.9)
    jobs = [replace(task, options=RequestOptions(is_safety=True)) for task in tasks(6)]
    (tmp_path / "exact").mkdir()
    (tmp_path / "waves").mkdir()
    exact = records(await run(tmp_path / "exact", seeded, jobs, **changes))
    found = records(await run(tmp_path / "waves", seeded, jobs, waves=waves, **changes))
    for entry, whole in zip(found, exact, strict=True):
        selection = entry.selection
        assert indices(entry) == list(range(sum(arm.candidates for arm in entry.arms)))
        assert len(entry.arms) == 6
        for place, arm in enumerate(entry.arms):
            assert arm.waves
            own = [item for item in selection.scored if entry.arm_of(item.candidate) is arm]
            theirs = [item for item in whole.selection.scored if item.candidate.index // 8 == place]
            assert [item.candidate.text for item in own] == [item.candidate.text for item in theirs[: len(own)]]
            is_reached = max(item.reward.combined for item in own) >= 0.9
            assert len(own) == arm.candidates == min(8, 2 * arm.waves.count)
            assert arm.waves.stopped_by == ("reward" if is_reached and len(own) < 8 else "candidates")
        assert selection.waves == max(arm.waves.count for arm in entry.arms if arm.waves)
        best = entry.arm_of(selection.winner.candidate).waves
        assert best
        assert selection.stopped_by == best.stopped_by
        assert selection.requested == 48
    assert len({arm.candidates for entry in found for arm in entry.arms}) > 1


async def test_an_expected_gain_ends_the_waves(tmp_path: Path, seeded: Service) -> None:
    """Also a line's own; what is expected is a function of the prompt's best and the number seen alone."""

    def expected(best: float, seen: int, step: int, *, is_safety: bool) -> float:
        return (1 - best) * step / (seen + step)

    waves = Waves(2, 2, gain=0.05)
    lines = [*tasks(9), replace(tasks(10)[9], options=RequestOptions(adaptive=Waves(1, 1, gain=0.9)))]
    chosen = choices(candidates=K, waves=waves, knows_gains=True)
    backend = InProcess(seeded, 0.001, expected_gain=expected)
    with Journal(tmp_path) as journal:
        await Runner(Planner(chosen, RULES, backend.is_safety).plan, backend, journal, Meter(10), 4).run(lines)
    found = records(list(read(tmp_path)))
    for entry in found[:-1]:
        rewards = [item.reward.combined for item in entry.selection.scored]
        stops = [
            end
            for end in waves.ends(K)
            if end < K and expected(max(rewards[:end]), end, min(2, K - end), is_safety=False) / min(2, K - end) < 0.05
        ]
        assert len(rewards) == min(stops, default=K)
        assert entry.selection.stopped_by == ("gain" if len(rewards) < K else "candidates")
    assert len({entry.selection.candidates for entry in found}) > 2
    assert found[-1].selection.candidates == 1


def test_a_gain_needs_a_table() -> None:
    with pytest.raises(RunError, match="--gains"):
        choices(waves=Waves(gain=0.01))


def test_a_budget_has_no_other_stop() -> None:
    with pytest.raises(RunError, match="--adaptive and --budget exclude each other"):
        choices(waves=Waves(reward=0.9), budget=Budget(100))


@pytest.mark.parametrize("changes", [{"temperatures": (0.7, 1.0)}, {"context_distillation": True}])
def test_a_budget_is_for_one_way_of_sampling(changes: dict[str, object]) -> None:
    with pytest.raises(RunError, match="one temperature"):
        choices(budget=Budget(100), **changes)
