"""The roofline: known figures, and the properties of any lower bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models.engines.dummy_checkpoints import SHAPES
from winnow.models.engines.roofline import H200, Machine, Roofline, decode_step_seconds, roofline, scoring_seconds

SEVEN = SHAPES["llama-2-7b"]
quick = settings(max_examples=40)
lengths = st.lists(st.integers(1, 300), min_size=1, max_size=12)
prompts = st.integers(1, 1000)
machines = st.builds(Machine, st.just("any"), st.floats(1e10, 1e13), st.floats(1e11, 1e16))


def of(prompt: int, answers: list[int], machine: Machine = H200) -> Roofline:
    return roofline(prompt, answers, SEVEN, [SEVEN, SEVEN], machine)


@pytest.mark.parametrize(
    ("candidates", "milliseconds"), [(1, 726), (4, 758), (8, 801), (16, 887), (32, 1059), (64, 1403)]
)
def test_the_figures_for_an_h200(candidates: int, milliseconds: int) -> None:
    """They count a step for the first token too, which the prefill makes: 0.4 % more."""
    found = of(256, [256] * candidates)
    assert found.seconds * 1e3 == pytest.approx(milliseconds, rel=0.006)
    assert found.decode / found.seconds > 0.9


def test_a_roofline_by_hand() -> None:
    """Two tokens of one candidate: a prefill, one step, and one pass of each reward model; all read the weights."""
    slow = Machine("slow", 1e9, 1e18)
    weights = 2 * (SEVEN.matrices + SEVEN.vocabulary * SEVEN.hidden)
    found = of(10, [2], slow)
    assert found.prefill == pytest.approx(weights / 1e9)
    assert found.decode == pytest.approx((weights + 11 * 2**19) / 1e9)
    assert found.scoring == pytest.approx(2 * (2 * (SEVEN.matrices + SEVEN.hidden) + 10 * 2**19) / 1e9)
    assert of(10, [1], slow).decode == 0, "the prefill makes the first token"


@quick
@given(prompts, lengths, st.integers(1, 300), machines)
def test_a_further_candidate_makes_nothing_faster(prompt: int, answers: list[int], more: int, machine: Machine) -> None:
    fewer, all_of_them = of(prompt, answers, machine), of(prompt, [*answers, more], machine)
    assert fewer.seconds <= all_of_them.seconds * (1 + 1e-12)


@quick
@given(prompts, lengths, st.data(), machines)
def test_longer_is_slower(prompt: int, answers: list[int], data: st.DataObject, machine: Machine) -> None:
    at = data.draw(st.integers(0, len(answers) - 1))
    longer = [length + (index == at) for index, length in enumerate(answers)]
    before = of(prompt, answers, machine)
    assert before.seconds <= of(prompt, longer, machine).seconds * (1 + 1e-12)
    assert before.seconds <= of(prompt + 1, answers, machine).seconds * (1 + 1e-12)


@quick
@given(prompts, lengths, machines, st.floats(1, 10))
def test_a_faster_machine_is_faster(prompt: int, answers: list[int], machine: Machine, times: float) -> None:
    found = of(prompt, answers, machine)
    for better in (
        replace(machine, bandwidth=machine.bandwidth * times),
        replace(machine, flops=machine.flops * times),
    ):
        assert of(prompt, answers, better).seconds <= found.seconds * (1 + 1e-12)


@quick
@given(prompts, lengths)
def test_candidates_that_end_together_are_scored_behind_the_last(prompt: int, answers: list[int]) -> None:
    found = of(prompt, answers)
    assert found.tied >= 0
    if answers.count(max(answers)) == 1:
        assert found.tied == 0
    assert found.seconds_tied == found.seconds + found.tied


@quick
@given(prompts, st.permutations([3, 50, 7, 7, 120]))
def test_the_order_of_candidates_is_nothing(prompt: int, answers: list[int]) -> None:
    assert of(prompt, answers) == of(prompt, sorted(answers))


@pytest.mark.parametrize("answers", [[], [3, 0]])
def test_no_answer_has_no_roofline(answers: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        of(10, answers)


@quick
@given(prompts, st.integers(1, 40), st.integers(1, 12), machines)
def test_a_roofline_is_made_of_its_steps_and_scores(prompt: int, length: int, live: int, machine: Machine) -> None:
    whole = of(prompt, [length] * live, machine)
    steps = (decode_step_seconds(SEVEN, machine, live, prompt + made) for made in range(1, length))
    assert whole.decode == pytest.approx(sum(steps))
    assert whole.scoring == pytest.approx(2 * scoring_seconds(SEVEN, machine, length + 1, prompt))
