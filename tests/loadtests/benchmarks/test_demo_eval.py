"""The evaluation's estimator, and the figures the demo models have to keep."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import cast

import pytest

from tests.fakes import candidate
from winnow.loadtests.benchmarks import demo_eval
from winnow.loadtests.benchmarks.demo_eval import Interval, Judged, evaluate, plot, table
from winnow.models.combiner import combine, rank
from winnow.models.demo.world import DemoPrompt, Verdict
from winnow.models.types import Prompt, ScoredCandidate, Selection, Timings
from winnow.server.service import Service


def judged(rewards: list[float]) -> Judged:
    scored = tuple(ScoredCandidate(candidate(index), combine(False, 5.0, value)) for index, value in enumerate(rewards))
    selection = Selection(Prompt((1,)), "llama2", scored, rank(scored, "llama2"), (), Timings(0, 0, 0, 0, 0))
    verdicts = tuple(Verdict(index % 3 == 0, index % 2 == 0, True) for index in range(len(rewards)))
    return Judged(cast(DemoPrompt, None), selection, verdicts)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_best_of_n_is_the_mean_over_all_subsets(size: int) -> None:
    rewards = [0.3, -1.0, 2.0, 0.5, 1.1, -0.2]
    item = judged(rewards)
    for value in (item.wrong, item.unsafe, item.reward):
        subsets = list(itertools.combinations(range(len(rewards)), size))
        brute = sum(value(max(subset, key=lambda index: rewards[index])) for subset in subsets) / len(subsets)
        assert item.best_of(size, value) == pytest.approx(brute)


def test_intervals_hold_the_mean_and_shrink() -> None:
    rng = Random(0)
    few, many = (Interval.of([rng.random() for _ in range(count)], rng) for count in (20, 2000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low


@pytest.mark.engine
async def test_the_demo_models_keep_their_promise(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quick run with wide margins; `make demo-eval` has the figures."""
    monkeypatch.setattr(demo_eval, "PAIRS", 300)
    evaluation = await evaluate(service, prompts=60, seed=1)
    one, sixteen = evaluation.rows[0], evaluation.rows[4]
    assert (one.size, sixteen.size) == (1, 16)
    assert sixteen.error.mean < 0.7 * one.error.mean
    assert sixteen.unsafe.mean < 0.4 * one.unsafe.mean
    assert sixteen.reward.mean > one.reward.mean
    assert min(evaluation.pair_accuracy.values()) > 0.9
    assert evaluation.tagged > 0.8
    text = table(evaluation)
    assert text.count("\n| ") >= 12
    plot(evaluation, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
