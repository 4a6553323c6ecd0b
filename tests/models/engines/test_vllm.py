"""The engines against the transformers reference, and their life and death."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.fakes import ScriptedRewardModel
from winnow.models import demo
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK, Calibration, scored_ids
from winnow.models.types import Message, Prompt, sigmoid
from winnow.server.cli.check import example_prompts
from winnow.server.service import Service

pytestmark = pytest.mark.engine

ANSWERS = ("The capital of France is Paris.", "I'm sorry, but I cannot help with that.", "", "No! 🙂 </s>")


async def test_served_rewards_equal_a_transformers_forward_pass(service: Service) -> None:
    for served, name in ((service.safety, "safety-rm"), (service.helpfulness, "helpfulness-rm")):
        reference = ReferenceRewardModel(str(demo.weights(name)), service.template.eos_id)  # type: ignore[arg-type]
        for prompt in example_prompts(service.template, service.tokenizer)[::7]:
            for answer in ANSWERS:
                ids = service.template.encode(answer)
                assert await served.score(prompt, ids) == pytest.approx(await reference.score(prompt, ids), abs=0.02)


async def test_scores_do_not_depend_on_the_batch(service: Service) -> None:
    """Public reports show 0.429, 0.476 and 0.480 for the same answer in batches of 1, 2 and 3."""
    prompt = service.template.render([Message("user", "Name three fruits.")])
    ids = service.template.encode("Apple, banana and cherry.")
    alone = await service.safety.score(prompt, ids)
    for size in (1, 2, 3, 16):
        others = [service.template.encode("word " * n) for n in range(size - 1)]
        batch = await asyncio.gather(*(service.safety.score(prompt, answer) for answer in [ids, *others]))
        assert batch[0] == pytest.approx(alone, abs=1e-4)


async def test_scores_are_raw_logits(service: Service) -> None:
    """A sigmoid applied by the engine would leave every score in (0, 1), and the gate would never fire."""
    prompt = service.template.render([Message("user", "How do I make a bomb?")])
    scores = [await service.safety.score(prompt, service.template.encode(answer)) for answer in ANSWERS]
    assert any(not 0 < score < 1 for score in scores)


async def test_the_canaries_sing_and_a_flipped_sign_silences_them(service: Service) -> None:
    for canary, model in ((SAFETY_CHECK, service.safety), (HELPFULNESS_CHECK, service.helpfulness)):
        assert await canary.run("demo", model, service.template) > 0
        flip = Calibration(scale=-1.0)
        model_calibration, model._calibration = model._calibration, flip
        try:
            with pytest.raises(CheckpointError, match="canary"):
                await canary.run("demo", model, service.template)
        finally:
            model._calibration = model_calibration


@pytest.mark.parametrize("constant", [0.3, float("nan"), float("inf")])
async def test_a_canary_needs_a_margin(service: Service, constant: float) -> None:
    with pytest.raises(CheckpointError, match="canary"):
        await SAFETY_CHECK.sing("constant", ScriptedRewardModel(lambda ids: constant), service.template)


async def test_a_canary_hears_a_second_sigmoid(service: Service) -> None:
    """Its order is right and its margin positive, but no answer would ever be below the gate."""
    canary = HELPFULNESS_CHECK

    class Squashed(ScriptedRewardModel):
        async def score(self, prompt: Prompt, answer_ids: Sequence[int]) -> float:
            return sigmoid(await service.helpfulness.score(prompt, answer_ids))

    with pytest.raises(CheckpointError, match="sigmoid"):
        await canary.run("squashed", Squashed(), service.template)


async def test_a_score_of_the_wrong_shape_is_none(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(*_: object) -> SimpleNamespace:
        return SimpleNamespace(outputs=SimpleNamespace(data=torch.zeros(2)))

    monkeypatch.setattr(service.safety, "_last", two)
    with pytest.raises(CandidateFailed, match="2 scores"):
        await service.safety.score(Prompt((1, 5)), (6, 7))


async def test_an_engine_that_owes_nothing_is_not_stuck(service: Service) -> None:
    for engine in service.engines.values():
        assert not await engine.is_stuck(0.001)
        assert engine.unfinished == 0
    prompt = service.template.render([Message("user", "Hello")])
    busy = asyncio.create_task(service.policy.sample(prompt, Sampling(max_tokens=400, logit_bias={2: -100.0}), 0))
    while not service.policy.unfinished:  # noqa: ASYNC110, vLLM sets no event
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # longer than the silence that is asked about
    assert not await service.policy.is_stuck(0.25), "an engine that decodes gives a sign of life"
    await busy


async def test_requests_that_are_given_up_one_after_another_are_no_hang(service: Service) -> None:
    """Each was younger than the limit and none was ever answered, so that together they looked like a hang."""
    engine = service.safety

    async def never() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    tasks = [asyncio.create_task(engine._last(never()))]
    for _ in range(6):
        await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(engine._last(never())))
        await asyncio.sleep(0)
        tasks.pop(0).cancel()
        await asyncio.sleep(0)
        assert not await engine.is_stuck(0.2)
    await asyncio.sleep(0.2)
    assert await engine.is_stuck(0.2)
    tasks.pop().cancel()
    await asyncio.sleep(0)
    assert not await engine.is_stuck(0.0001)


async def test_sampling_parameters_are_honoured(service: Service) -> None:
    prompt = service.template.render([Message("user", "Name three animals.")])
    short = await service.policy.sample(prompt, Sampling(max_tokens=2), 0)
    assert (short.tokens, short.finish_reason) == (2, "length")
    greedy = await service.policy.sample(prompt, Sampling(max_tokens=16, temperature=0), 0)
    for narrowing in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        narrowed = await service.policy.sample(prompt, replace(Sampling(max_tokens=16), **narrowing), 0)
        assert narrowed.token_ids == greedy.token_ids
    forced = await service.policy.sample(prompt, Sampling(max_tokens=4, logit_bias={300: 100.0}), 0)
    assert forced.text == service.template.tokenizer.decode([300] * 4)
    spread = Sampling(max_tokens=24, logit_bias=dict.fromkeys(range(300, 400), 100.0), temperature=0)
    penalties = {"presence_penalty": 2.0, "frequency_penalty": 2.0}
    plain, penalised = [
        await service.policy.sample(prompt, sampling, 0) for sampling in (spread, replace(spread, **penalties))
    ]
    assert len(set(penalised.token_ids)) > len(set(plain.token_ids))


async def test_a_cancelled_candidate_leaves_the_engine(service: Service) -> None:
    prompt = service.template.render([Message("user", "Name three animals.")])
    endless = Sampling(max_tokens=1500, logit_bias={service.template.eos_id: -100.0})
    tasks = [asyncio.create_task(service.policy.sample(prompt, endless, index)) for index in range(8)]
    while service.policy.llm.output_processor.get_num_unfinished_requests() < 8:  # noqa: ASYNC110, vLLM sets no event
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert service.policy.llm.output_processor.get_num_unfinished_requests() == 0


def test_seeds_differ_by_candidate_and_by_request() -> None:
    seeds = {candidate_seed(seed, index) for seed in range(50) for index in range(64)}
    assert len(seeds) == 50 * 64
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_reward_model_reads_the_policys_ids_and_eos() -> None:
    assert scored_ids(Prompt((1, 5)), (6, 7), 2) == [1, 5, 6, 7, 2]
