"""Figures of judged answers."""

from __future__ import annotations

from random import Random

import pytest

from tests.loadtests.benchmarks.demo_eval.made import FRANCE, judged
from winnow.loadtests.benchmarks.demo_eval.figures import CATEGORY_SIZE, evaluate
from winnow.loadtests.benchmarks.demo_eval.judged import CANDIDATES, SIZES, Judged
from winnow.models.demo.questions import ListQuestion


def prompts(count: int, seed: int, *, hacked: bool) -> list[Judged]:
    """Prompts with few correct candidates; the reward model likes them, or one wrong one even more."""
    rng, made = Random(seed), []
    for index in range(count):
        correct = [rng.random() < 0.3 for _ in range(CANDIDATES - 1)] + [False]
        rewards = [flag + rng.random() for flag in correct[:-1]] + [3.0 if hacked else -1.0]
        made.append(judged(rewards, correct, FRANCE if index % 2 else ListQuestion("fruits", "three")))
    return made


def test_the_error_falls_with_n_or_rises_where_a_wrong_answer_is_liked_most() -> None:
    good, hacked = (evaluate(prompts(20, 1, hacked=hacked), 0) for hacked in (False, True))
    assert [row.size for row in good.rows] == list(SIZES)
    assert (good.rise, good.row(64).error.value) == (0.0, 0.0)
    assert hacked.row(64).error.value == 1.0
    assert hacked.rise == pytest.approx(1 - min(row.error.value for row in hacked.rows))
    assert hacked.rise > 0.5
    for row in (*good.rows, *hacked.rows):
        assert row.oracle.value <= row.error.value + 1e-9
    assert [row.oracle for row in good.rows] == [row.oracle for row in hacked.rows]


def test_categories_are_the_prompts_own_and_make_up_the_whole() -> None:
    items = prompts(21, 2, hacked=True)
    evaluation = evaluate(items, 0)
    assert [(row.category, row.error.count) for row in evaluation.categories] == [("capital", 10), ("list", 11)]
    whole = evaluation.row(CATEGORY_SIZE)
    for mean, part in (("error", lambda row: row.error.value), ("oracle", lambda row: row.oracle)):
        weighted = sum(part(row) * row.error.count for row in evaluation.categories) / len(items)
        assert weighted == pytest.approx(getattr(whole, mean).value)
    single = sum(row.single * row.error.count for row in evaluation.categories) / len(items)
    assert single == pytest.approx(evaluation.row(1).error.value)
