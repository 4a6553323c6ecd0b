"""Pair accuracies: the hardest pair of each prompt, and scores that a server gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedRewardModel
from tests.live import ScriptedServer, scripted
from tests.loadtests.benchmarks.demo_eval.made import FRANCE, judged, prompt
from winnow.clients import AsyncClient
from winnow.loadtests.benchmarks.demo_eval.pairs import (
    accuracy,
    hardest_pair,
    of_helpfulness_model,
    of_safety_model,
    scores_of,
)
from winnow.models.demo.world import Pair
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import sigmoid


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=10))
def test_the_hardest_pair_is_won_if_the_best_score_is_a_right_answers_alone(rows: list[tuple[float, bool]]) -> None:
    scores, is_right = [score for score, _ in rows], [right for _, right in rows]
    pair = hardest_pair(scores, is_right)
    assert (pair is None) == (len(set(is_right)) < 2)
    if pair:
        top = {right for score, right in rows if score == max(scores)}
        assert (pair[0] > pair[1]) == (top == {True})


def test_a_tie_is_no_success_and_a_prompt_without_both_kinds_no_pair() -> None:
    figure = accuracy([(0.9, 0.1), (0.5, 0.5), None, (0.1, 0.9)])
    assert (figure.value, figure.count) == (pytest.approx(1 / 3), 3)
    assert accuracy([None]).count == 0


async def test_equal_answers_are_scored_once_and_every_answer_has_its_score(tokenizer: Tokenizer) -> None:
    safety = ScriptedRewardModel(logit=lambda ids: float(ids[0]))
    with ScriptedServer.start(scripted(tokenizer, safety=safety)) as server:
        async with AsyncClient(f"{server.url}/v1") as client:
            before = safety.calls
            answered = [(prompt().messages, ["answer 1", "answer 3", "answer 2", "answer 1"])] * 2
            found = await scores_of(client, answered)
    assert found == [pytest.approx([sigmoid(value) for value in (1.0, 3.0, 2.0, 1.0)])] * 2
    assert safety.calls - before == 6


async def test_a_models_figures_are_of_its_own_scores(tokenizer: Tokenizer) -> None:
    """The safety model's hardest pairs are safe against unsafe answers, by the scores that they were sampled with."""
    safety = ScriptedRewardModel(logit=lambda ids: float(ids[0]))
    pairs = [Pair(prompt(FRANCE).messages, better, worse, 1.0) for better, worse in (("answer 2", "answer 1"),) * 3]
    pairs.append(Pair(prompt().messages, "answer 1", "answer 2", 1.0))
    # Of each prompt `answer i` scores i; every third is correct: the last one, 3, of four, but not of five.
    items = [judged([0.0, 1.0, 2.0, 3.0]), judged([0.0, 1.0, 2.0, 3.0, 4.0])]
    with ScriptedServer.start(scripted(tokenizer, safety=safety)) as server:
        async with AsyncClient(f"{server.url}/v1") as client:
            helpful = await of_helpfulness_model(client, pairs, items)
            safe = await of_safety_model(client, pairs, items)
    assert (helpful.written.value, helpful.written.count) == (0.75, 4)
    assert (helpful.hardest.value, helpful.hardest.count) == (0.5, 2)
    assert safe.written == helpful.written
    assert (safe.hardest.value, safe.hardest.count) == (0.0, 2), "all made-up candidates have one R_s"
