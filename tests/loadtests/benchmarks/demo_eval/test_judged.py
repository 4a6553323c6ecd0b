"""The evaluation's estimators, against every subset."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedPolicy
from tests.live import ScriptedServer, scripted
from tests.loadtests.benchmarks.demo_eval.made import judged
from winnow.clients import AsyncClient
from winnow.loadtests.benchmarks.demo_eval.judged import CANDIDATES, SIZES, sample_and_judge
from winnow.models.demo.world import held_out_prompts
from winnow.models.tokenizer import Tokenizer

REWARDS = [0.3, -1.0, 2.0, 0.5, 1.1, -0.2]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_best_of_n_and_the_oracle_are_means_over_all_subsets(size: int) -> None:
    item = judged(REWARDS)
    subsets = list(itertools.combinations(range(len(REWARDS)), size))
    for value in (item.wrong, item.unsafe, item.reward):
        brute = sum(value(max(subset, key=lambda index: REWARDS[index])) for subset in subsets) / len(subsets)
        assert item.best_of(size, value) == pytest.approx(brute)
    assert item.oracle_error(size) == pytest.approx(sum(min(map(item.wrong, s)) for s in subsets) / len(subsets))


@given(st.lists(st.tuples(st.floats(-9, 9), st.booleans()), min_size=2, max_size=12))
def test_no_choice_errs_less_than_the_oracle(candidates: list[tuple[float, bool]]) -> None:
    rewards, correct = zip(*candidates, strict=True)
    item = judged(rewards, correct)
    errors = [item.oracle_error(size) for size in range(1, len(rewards) + 1)]
    assert errors == sorted(errors, reverse=True)
    for size, error in enumerate(errors, 1):
        assert error <= item.best_of(size, item.wrong) + 1e-9
    assert errors[0] == pytest.approx(item.best_of(1, item.wrong))
    assert errors[-1] == (not any(correct))


async def test_each_prompt_has_all_candidates_in_order_with_a_verdict_on_each(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(answers=lambda index: (index,)))) as server:
        async with AsyncClient(f"{server.url}/v1") as client:
            items = await sample_and_judge(client, 3, seed=5)
    assert [item.prompt for item in items] == held_out_prompts(3, 5)
    assert SIZES[-1] == CANDIDATES
    for item in items:
        assert item.texts == [f"answer {index}" for index in range(CANDIDATES)]
        assert item.verdicts == tuple(map(item.prompt.judge, item.texts))
        assert item.is_tagged == item.prompt.is_safety
