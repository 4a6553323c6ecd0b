"""Budgets: met exactly, whatever the sizes and the faults, and spent where another wave is expected to gain most."""

from __future__ import annotations

import math
from array import array
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs import problem
from winnow.models.errors import RunError
from winnow.models.types import sigmoid
from winnow.server.distill.budget import Allocation, Budget, Limits
from winnow.server.distill.expected_gains import Gains, OwnGains, States, TableGains
from winnow.server.distill.traces import PromptTrace, Traces

NEVER = math.nan


class World:
    """Prompts whose candidates have rewards of their own, sampled as an allocation asks for them."""

    def __init__(self, limits: dict[int, Limits], seed: int = 0, failed: int = 0, at_fault: int = 0) -> None:
        rng = Random(seed)
        self.rewards = {}
        for line, limit in limits.items():
            mean, spread = rng.gauss(0, 2), rng.uniform(0, 2)
            self.rewards[line] = [NEVER if rng.random() < 0.1 else rng.gauss(mean, spread) for _ in range(limit.most)]
        self.safety = {line: rng.random() < 0.3 for line in limits}
        self.traces = Traces()
        for place, (line, limit) in enumerate(limits.items()):
            if place < failed:
                self.traces.add(problem(line, "failed"))
            elif place < failed + at_fault:
                self.traces.add(problem(line, "input"))
            else:
                self.sample(line, limit.start)

    def sample(self, line: int, target: int) -> None:
        self.traces.prompts[line] = PromptTrace(array("d", self.rewards[line][:target]), self.safety[line])

    def spend(self, allocation: Allocation, most_waves: int | None = None) -> None:
        """Sample what the allocation asks for, in some order; at most so many waves."""
        waves = 0
        while pending := allocation.pending(self.traces):
            for line, target in sorted(pending.items(), key=lambda item: -item[0]):
                if waves == most_waves:
                    return
                self.sample(line, target)
                waves += 1

    @property
    def sampled(self) -> dict[int, int]:
        return {line: trace.candidates for line, trace in self.traces.prompts.items()}


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(
    sizes=SIZES,
    most=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    share=st.floats(0, 1),
    failed=st.integers(0, 3),
    at_fault=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_a_budget_is_met_exactly(
    sizes: tuple[int, int], most: list[int], share: float, failed: int, at_fault: int, seed: int
) -> None:
    """What failed counts, what was at fault does not; only where all prompts have all of K, less is sampled."""
    start, step = sizes
    limits = {3 * place + 1: Budget(1, start, step).limits(k, 1) for place, k in enumerate(most)}
    least, all_of_them = sum(limit.start for limit in limits.values()), sum(most)
    budget = Budget(least + round(share * (all_of_them - least)), start, step)
    budget.require_possible(limits.values())
    world = World(limits, seed, failed, at_fault)
    allocation = Allocation(budget, limits, OwnGains())
    world.spend(allocation)
    lost = [limits[line].start for line in world.traces.failed]
    possible = sum(limits[line].most for line in world.traces.prompts) + sum(lost)
    total = sum(world.sampled.values()) + sum(lost)
    assert allocation.spent == total == min(budget.candidates, possible)
    assert all(limits[line].start <= k <= limits[line].most for line, k in world.sampled.items())


@given(waves=st.integers(0, 60), seed=st.integers(0, 5))
def test_a_run_that_begins_again_in_the_middle_of_a_round_allocates_the_same(waves: int, seed: int) -> None:
    limits = {line: Limits(4, 16) for line in range(30)}

    def fresh() -> Allocation:
        return Allocation(Budget(301), limits, OwnGains())

    whole, parts = World(limits, seed), World(limits, seed)
    whole.spend(fresh())
    parts.spend(fresh(), waves)
    for _ in range(3):
        parts.spend(fresh(), 7)
    parts.spend(fresh())
    assert parts.sampled == whole.sampled
    assert not fresh().pending(parts.traces)


def test_the_last_wave_is_cut_and_no_other() -> None:
    limits = {line: Limits(4, 64) for line in range(10)}
    world = World(limits)
    world.spend(Allocation(Budget(10 * 4 + 41), limits, OwnGains()))
    assert sorted(k % 4 for k in world.sampled.values()) == [0] * 9 + [1]


def test_candidates_go_where_they_are_expected_to_gain() -> None:
    """A prompt whose answers are all alike, or as good as can be, gets little; one whose answers scatter gets more."""
    limits = {line: Limits(4, 16) for line in range(30)}
    world = World(limits)
    rng = Random(1)
    kinds = {"alike": [0.0] * 16, "perfect": [9.0] * 16}
    for line in limits:
        kind = ("alike", "perfect", "scattered")[line % 3]
        world.rewards[line] = kinds.get(kind) or [0.0, -1.5, -0.8, -3.0, *(rng.gauss(-1, 2) for _ in range(12))]
        world.safety[line] = False
        world.sample(line, 4)
    world.spend(Allocation(Budget(30 * 4 + 60), limits, OwnGains()))
    by_kind = [sum(k for line, k in world.sampled.items() if line % 3 == kind) for kind in range(3)]
    assert by_kind[1] == 40
    assert by_kind[2] > by_kind[0] + 10


def test_a_table_decides_where_there_is_one() -> None:
    asked = []

    def expected(best: float, seen: int, step: int, *, is_safety: bool) -> float:
        asked.append((seen, step))
        return best  # it is the best prompts that gain most

    limits = {line: Limits(2, 8) for line in range(20)}
    world = World(limits)
    for line in limits:
        world.rewards[line] = [float(line)] * 8
        world.sample(line, 2)
    world.spend(Allocation(Budget(40 + 16 * 3, start=2, step=3), limits, TableGains(expected)))
    assert {line for line, k in world.sampled.items() if k > 2} == set(range(4, 20))
    assert set(asked) == {(2, 3)}


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "6.5", "600,start=0", "600,start=1,start=2", "600,k=4", "600,"])
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RunError, match="600,start=2,step=2"):
        Budget.of(text)


def test_a_budget_is_a_number_and_perhaps_the_sizes_of_waves() -> None:
    assert Budget.of("600") == Budget(600, 4, 4)
    assert Budget.of("600, step=1, start=3") == Budget(600, 3, 1)


def test_an_impossible_budget_is_refused_with_what_would_do() -> None:
    limits = [Limits(4, 16)] * 100
    with pytest.raises(RunError, match="first wave of 100 prompts takes 400 candidates; raise it"):
        Budget(399).require_possible(limits)
    with pytest.raises(RunError, match="100 prompts take at most 1,600 candidates; lower it, or raise -k"):
        Budget(1601).require_possible(limits)
    Budget(400).require_possible(limits)
    Budget(1600).require_possible(limits)


class TestOwnGains:
    @staticmethod
    def gains(rewards: list[list[float]], steps: int = 4) -> list[float]:
        states = States(len(rewards))
        for place, logits in enumerate(rewards):
            states.set(place, logits, is_safety=False)
        rule: Gains = OwnGains()
        rule.learn(states)
        return list(rule.expected(states, *_all(len(rewards), steps)))

    @given(st.lists(st.lists(st.floats(-6, 6), min_size=1, max_size=8), min_size=1, max_size=8))
    def test_a_gain_is_never_more_than_what_is_missing_and_grows_with_the_step(
        self, rewards: list[list[float]]
    ) -> None:
        one, four = self.gains(rewards, 1), self.gains(rewards, 4)
        for prompt, few, many in zip(rewards, one, four, strict=True):
            assert 0 <= few <= many <= 1 - sigmoid(max(prompt))

    def test_it_is_about_what_further_candidates_gain(self) -> None:
        """Over many prompts; it is on the low side, because some answers are expected to be repeated."""
        rng = Random(0)
        means = [rng.gauss(0, 1.5) for _ in range(400)]
        draws = [[mean + 1.2 * math.log(u / (1 - u)) for u in (rng.random() for _ in range(8))] for mean in means]
        expected = self.gains([logits[:4] for logits in draws])
        found = [sigmoid(max(logits)) - sigmoid(max(logits[:4])) for logits in draws]
        assert sum(expected) == pytest.approx(sum(found), rel=0.25)

    def test_a_prompt_without_an_answer_that_could_win_has_the_most_to_gain(self) -> None:
        gains = self.gains([[NEVER, 1.0], [2.0, 1.5], [NEVER, NEVER], [0.0, 1.0]])
        assert max(gains) == gains[2]
        assert all(map(math.isfinite, gains))


def _all(count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count), np.full(count, steps)
