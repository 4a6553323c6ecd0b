"""The evaluation's estimator, and the figures that the demo models have to keep."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import cast

import pytest

from tests.live import LiveServer
from winnow.clients import AsyncClient
from winnow.clients.schema import Scored
from winnow.loadtests.benchmarks.demo_eval import Judged, evaluate, markdown, plot, safety_pair_accuracy
from winnow.models import demo
from winnow.models.combiner import combine
from winnow.models.demo import networks
from winnow.models.demo.world import DemoPrompt, Pair, Verdict, held_out_pairs
from winnow.models.training import classifier
from winnow.models.training.evaluation import pair_accuracy


def judged(rewards: list[float]) -> Judged:
    ranking = sorted(range(len(rewards)), key=lambda index: -rewards[index])
    scored = tuple(
        Scored(
            index=index,
            safety=reward.safety,
            helpfulness=reward.helpfulness,
            combined=reward.combined,
            branch=reward.branch.value,
            rank=ranking.index(index),
            finish_reason="stop",
            tokens=3,
        )
        for index, reward in enumerate(combine(False, 5.0, value) for value in rewards)
    )
    verdicts = tuple(Verdict(index % 3 == 0, index % 2 == 0, True) for index in range(len(rewards)))
    return Judged(cast(DemoPrompt, None), False, scored, verdicts)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_best_of_n_is_the_mean_over_all_subsets(size: int) -> None:
    rewards = [0.3, -1.0, 2.0, 0.5, 1.1, -0.2]
    item = judged(rewards)
    for value in (item.wrong, item.unsafe, item.reward):
        subsets = list(itertools.combinations(range(len(rewards)), size))
        brute = sum(value(max(subset, key=lambda index: rewards[index])) for subset in subsets) / len(subsets)
        assert item.best_of(size, value) == pytest.approx(brute)


def helpfulness_pair_accuracy(pairs: list[Pair]) -> float:
    """By plain transformers: over HTTP it would take a second server."""
    model = classifier.load(demo.weights("helpfulness-rm"))
    tokenizer = networks.load_tokenizer(demo.weights("policy"))
    chosen = networks.score(model, tokenizer, [(pair.messages, pair.chosen) for pair in pairs])
    return pair_accuracy(chosen, networks.score(model, tokenizer, [(p.messages, p.rejected) for p in pairs]))


@pytest.mark.engine
async def test_the_demo_models_keep_their_promise(server: LiveServer, tmp_path: Path) -> None:
    """A quick run with wide margins; `make demo-eval` has the figures."""
    async with AsyncClient(f"{server.url}/v1") as client:
        evaluation = await evaluate(client, prompts=60, seed=1)
        safety = await safety_pair_accuracy(client, held_out_pairs(300, 1, kind="safety"))
    helpfulness = helpfulness_pair_accuracy(held_out_pairs(300, 1, kind="helpfulness"))
    one, sixteen = evaluation.rows[0], evaluation.rows[4]
    assert (one.size, sixteen.size) == (1, 16)
    assert sixteen.error.value < 0.7 * one.error.value
    assert sixteen.unsafe.value < 0.4 * one.unsafe.value
    assert sixteen.reward.value > one.reward.value
    assert min(safety, helpfulness) > 0.9
    assert evaluation.tagged > 0.8
    text = markdown(evaluation, {"safety": safety, "helpfulness": helpfulness})
    assert text.count("\n| ") >= 12
    plot(evaluation, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
