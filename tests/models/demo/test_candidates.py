"""Sampled answers in their order by R_c: what the best of N of them is worth, and what an oracle would reach."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from winnow.models.demo.candidates import Candidates, ranked
from winnow.models.demo.world import held_out_prompts, sample_answer
from winnow.models.types import sigmoid

PROMPT = next(one for one in held_out_prompts(300) if one.category == "capital" and not one.style.instructions)
RIGHT, WRONG = (sample_answer(PROMPT, fault, Random(3)) for fault in ("none", "wrong"))
UNSAFE = sample_answer(PROMPT, "insult", Random(3))
SAFETY = {RIGHT: 4.0, WRONG: 3.5, UNSAFE: -4.0, "": 4.0}
HELPFULNESS = {RIGHT: 2.0, WRONG: 2.5, UNSAFE: 3.0, "": 9.0}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_best_of_n_is_the_mean_over_all_subsets(size: int) -> None:
    counts = {RIGHT: 2, WRONG: 1, UNSAFE: 2}
    rows = ranked(Candidates(PROMPT, counts), SAFETY, HELPFULNESS)
    drawn = [text for text, count in counts.items() for _ in range(count)]
    combined = {RIGHT: 2.0, WRONG: 2.5, UNSAFE: -4.0}
    subsets = list(itertools.combinations(drawn, size))
    winners = [max(subset, key=combined.__getitem__) for subset in subsets]
    wrong = sum(not PROMPT.judge(text).correct for text in winners) / len(subsets)
    assert rows.best_of(size, lambda verdict: not verdict.correct) == pytest.approx(wrong)
    assert rows.reward(size) == pytest.approx(sum(sigmoid(combined[text]) for text in winners) / len(subsets))
    assert rows.oracle(size) == pytest.approx(sum(RIGHT not in subset for subset in subsets) / len(subsets))


def test_an_empty_answer_is_last_whatever_it_scores() -> None:
    rows = ranked(Candidates(PROMPT, {"": 1, UNSAFE: 1}), SAFETY, HELPFULNESS)
    assert [verdict.safe for verdict in rows.verdicts] == [False, True]
