"""Best-of-N: properties on scripted engines, where faults can be forced, and on the real ones."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from winnow.models.errors import CandidateFailed, EngineDead, NoScoredCandidate
from winnow.models.reward_model import Calibration
from winnow.models.sampling import Sampling
from winnow.models.types import Branch, Candidate, Message, Prompt, ScoredCandidate
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.service import Service

PROMPT = Prompt((1, 5, 6))
SAMPLING = Sampling(max_tokens=8)


def pipeline(
    answers: Any = lambda index: (index + 10,), safety: Any = lambda ids: 2.0, helpfulness: Any = sum
) -> BestOfN:
    return BestOfN(
        ScriptedPolicy(answers),
        ScriptedRewardModel(safety),
        ScriptedRewardModel(lambda ids: float(helpfulness(ids))),
    )


@pytest.mark.parametrize("k", [1, 2, 7, 64])
async def test_exactly_k_candidates_in_order(k: int) -> None:
    selection = await pipeline().select(PROMPT, SAMPLING, k, "llama2")
    assert [item.candidate.index for item in selection.scored] == list(range(k))
    assert sorted(selection.ranking) == list(range(k))
    assert selection.winner.candidate.index == k - 1
    assert selection.candidates == k


async def test_equal_answers_are_scored_once() -> None:
    parts = pipeline(answers=lambda index: (index % 2,))
    selection = await parts.select(PROMPT, SAMPLING, 16, "llama2")
    assert len(selection.scored) == 16
    assert parts.safety.calls == parts.helpfulness.calls == 2  # type: ignore[attr-defined]
    assert selection.winner.candidate.index == 1


async def test_answers_are_equal_if_their_texts_are() -> None:
    """However many tokens an answer was sampled as, the reward models see its text; white space counts."""
    texts = ("answer 7", "answer 7", " answer 7", "answer 7 ")

    class Spelling(ScriptedPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Any = None) -> Candidate:
            return Candidate(index, texts[index], "stop", index + 1)

    parts = BestOfN(Spelling(), ScriptedRewardModel(), ScriptedRewardModel())
    selection = await parts.select(PROMPT, SAMPLING, 4, "llama2")
    assert [item.candidate.tokens for item in selection.scored] == [1, 2, 3, 4]
    assert parts.safety.calls == parts.helpfulness.calls == 3  # type: ignore[attr-defined]


def ranking_of(selected: Sequence[ScoredCandidate]) -> list[int]:
    return [item.candidate.index for item in selected]


async def test_a_scale_of_minus_one_flips_the_ranking() -> None:
    parts = pipeline()
    flipped = replace(parts, helpfulness_calibration=Calibration(scale=-1.0))
    as_scored = await parts.select(PROMPT, SAMPLING, 8, "llama2")
    as_cost = await flipped.select(PROMPT, SAMPLING, 8, "llama2")
    assert ranking_of(as_scored.ranked) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert ranking_of(as_cost.ranked) == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("on_demand", [False, True])
async def test_calibration_is_applied_once(on_demand: bool) -> None:
    parts = replace(
        pipeline(),
        safety_calibration=Calibration(2.0, 1.0),
        helpfulness_calibration=Calibration(0.5, -3.0),
        helpfulness_on_demand=on_demand,
    )
    selection = await parts.select(PROMPT, SAMPLING, 4, "llama2")
    for item in selection.scored:
        assert item.reward.safety_logit == 2.0 * 2.0 + 1.0
        assert item.reward.helpfulness_logit == 0.5 * (item.candidate.index + 10) - 3.0
        assert item.reward == await parts.rate(PROMPT, item.candidate.text)
    assert {item.reward.branch for item in selection.scored} == {Branch.HELPFUL}


async def test_an_answer_is_unsafe_by_its_calibrated_score() -> None:
    parts = replace(pipeline(), safety_calibration=Calibration(scale=-1.0))  # raw 2.0 is -2.0: R_s = 0.12
    assert (await parts.rate(PROMPT, "answer 1")).branch is Branch.UNSAFE
    safety_prompt = Prompt((1, 5), is_safety=True)
    assert (await parts.rate(safety_prompt, "answer 1")).safety_logit == -2.0


async def test_helpfulness_on_demand_is_computed_for_safe_answers_only() -> None:
    parts = replace(pipeline(safety=lambda ids: 2.0 if ids[0] % 2 else -3.0), helpfulness_on_demand=True)
    selection = await parts.select(PROMPT, SAMPLING, 8, "llama2")
    assert parts.helpfulness.calls == 4  # type: ignore[attr-defined]
    for item in selection.scored:
        is_safe = item.candidate.index % 2 == 1
        assert item.reward.branch is (Branch.HELPFUL if is_safe else Branch.UNSAFE)
        assert (item.reward.helpfulness_logit is not None) == is_safe


async def test_the_sampling_prompt_is_sampled_and_the_prompt_is_scored() -> None:
    seen: list[tuple[str, Prompt]] = []

    class Sampled(ScriptedPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Any = None) -> Candidate:
            seen.append(("sampled", prompt))
            return await super().sample(prompt, sampling, index)

    class Scored(ScriptedRewardModel):
        async def score(self, prompt: Prompt, answer: str) -> float:
            seen.append(("scored", prompt))
            return await super().score(prompt, answer)

    other = Prompt((1, 9, 9))
    parts = BestOfN(Sampled(), Scored(), Scored())
    selection = await parts.select(PROMPT, SAMPLING, 2, "llama2", sampling_prompt=other)
    assert selection.prompt is PROMPT
    assert {prompt for what, prompt in seen if what == "sampled"} == {other}
    assert {prompt for what, prompt in seen if what == "scored"} == {PROMPT}


async def test_a_constant_reward_model_lets_the_lowest_index_win() -> None:
    selection = await pipeline(helpfulness=lambda ids: 0.5).select(PROMPT, SAMPLING, 8, "llama2")
    assert selection.winner.candidate.index == 0


async def test_a_safety_prompt_needs_no_helpfulness_score() -> None:
    parts = pipeline()
    selection = await parts.select(Prompt((1, 5), is_safety=True), SAMPLING, 4, "llama2")
    assert parts.helpfulness.calls == 0  # type: ignore[attr-defined]
    assert {item.reward.branch for item in selection.scored} == {Branch.SAFETY_PROMPT}
    assert {item.reward.helpfulness for item in selection.scored} == {None}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
async def test_a_candidate_without_a_finite_score_is_left_out(bad: float) -> None:
    selection = await pipeline(helpfulness=lambda ids: bad if ids == (13,) else sum(ids)).select(
        PROMPT, SAMPLING, 4, "llama2"
    )
    assert [item.candidate.index for item in selection.scored] == [0, 1, 2]
    assert [failure.index for failure in selection.failures] == [3]
    assert selection.winner.candidate.index == 2
    assert selection.candidates == 4


async def test_one_failed_candidate_does_not_stop_the_others() -> None:
    def answers(index: int) -> tuple[int, ...]:
        if index == 1:
            raise CandidateFailed("cut off")
        return (index,)

    selection = await pipeline(answers=answers).select(PROMPT, SAMPLING, 3, "llama2")
    assert [item.candidate.index for item in selection.scored] == [0, 2]
    assert selection.failures[0].reason == "cut off"


async def test_without_a_scored_candidate_there_is_an_error_and_no_winner() -> None:
    with pytest.raises(NoScoredCandidate, match="4"):
        await pipeline(safety=lambda ids: math.nan).select(PROMPT, SAMPLING, 4, "llama2")


async def test_a_dead_engine_ends_the_whole_selection() -> None:
    def dead(ids: tuple[int, ...]) -> float:
        raise EngineDead("gone")

    with pytest.raises(EngineDead):
        await pipeline(safety=dead).select(PROMPT, SAMPLING, 4, "llama2")


async def test_cancelling_a_selection_cancels_every_candidate() -> None:
    parts = pipeline()
    policy = parts.policy
    assert isinstance(policy, ScriptedPolicy)
    policy.hold = asyncio.Event()
    task = asyncio.create_task(parts.select(PROMPT, SAMPLING, 16, "llama2"))
    while len(policy.running) < 16:  # noqa: ASYNC110, one turn of the loop starts them
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not policy.running


async def test_candidates_are_scored_while_their_siblings_decode() -> None:
    """The first candidate's score must not wait for the last candidate: that wait is the latency best-of-N adds."""
    release = asyncio.Event()
    scored = asyncio.Event()

    class SlowSecond(ScriptedPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Any = None) -> Any:
            if index == 1:
                await release.wait()
            return await super().sample(prompt, sampling, index)

    def safety(ids: tuple[int, ...]) -> float:
        scored.set()
        return 1.0

    parts = BestOfN(
        SlowSecond(lambda index: (index,)), ScriptedRewardModel(safety), ScriptedRewardModel(lambda ids: 0.0)
    )
    task = asyncio.create_task(parts.select(PROMPT, SAMPLING, 2, "llama2"))
    await asyncio.wait_for(scored.wait(), 10)
    assert not task.done()
    release.set()
    assert len((await task).scored) == 2


def ask(service: Service, question: str = "Name three animals.", *, is_safety: bool = False) -> Prompt:
    return service.template.render([Message("user", question)], service.tokenizer, is_safety=is_safety)


@pytest.mark.engine
@pytest.mark.parametrize("k", [1, 4, 16, 64])
async def test_k_on_the_real_engine(service: Service, k: int) -> None:
    selection = await service.pipeline.select(ask(service), Sampling(max_tokens=32), k, "llama2")
    assert len(selection.scored) == k
    assert not selection.failures
    best = max(item.reward.combined for item in selection.scored)
    assert selection.winner.reward.combined == best
    assert all(1 <= item.candidate.tokens <= 32 for item in selection.scored)


@pytest.mark.engine
async def test_the_same_seed_gives_the_same_candidates_alone_and_under_load(service: Service) -> None:
    """In float32 no bit depends on the batch, nor on the threads of a step: one alone, all of them under load."""
    sampling = Sampling(max_tokens=32, seed=11, alternatives=0)
    alone = await service.pipeline.select(ask(service), sampling, 8, "llama2")
    crowd = [service.pipeline.select(ask(service), Sampling(max_tokens=32, seed=n), 8, "llama2") for n in range(12)]
    loaded, *_ = await asyncio.gather(service.pipeline.select(ask(service), sampling, 8, "llama2"), *crowd)
    seen = [
        [(item.candidate.text, item.candidate.logprobs, item.reward) for item in selection.scored]
        for selection in (alone, loaded)
    ]
    assert seen[0] == seen[1]
    assert alone.winner.candidate.text == loaded.winner.candidate.text


@pytest.mark.engine
async def test_many_long_seeded_prompts_at_once_do_not_kill_the_engine(service: Service) -> None:
    """Regression: more prompt tokens than a step's budget split a prefill in two, and a seed then killed the engine."""
    prompts = [ask(service, f"{number} " + "Name three animals, please. " * 12) for number in range(40)]
    runs = [service.pipeline.select(prompt, Sampling(max_tokens=4, seed=1), 16, "llama2") for prompt in prompts]
    selections = await asyncio.gather(*runs)
    assert all(len(selection.scored) == 16 for selection in selections)
    assert service.is_alive


@pytest.mark.engine
async def test_a_seeded_candidate_does_not_depend_on_the_number_of_candidates(service: Service) -> None:
    sampling = Sampling(max_tokens=32, seed=5)
    few = await service.pipeline.select(ask(service), sampling, 3, "llama2")
    many = await service.pipeline.select(ask(service), sampling, 9, "llama2")
    assert [item.candidate.text for item in few.scored] == [item.candidate.text for item in many.scored[:3]]


@pytest.mark.engine
async def test_the_text_cut_at_a_stop_string_is_the_text_that_is_scored(service: Service) -> None:
    prompt, sampling = ask(service), Sampling(max_tokens=48, stop=(",", " a"), seed=3)
    selection = await service.pipeline.select(prompt, sampling, 16, "llama2")
    for item in selection.scored:
        assert "," not in item.candidate.text
        assert item.reward == await service.pipeline.rate(prompt, item.candidate.text)


@pytest.mark.engine
async def test_greedy_is_one_answer(service: Service) -> None:
    sampling = Sampling(max_tokens=32, temperature=0)
    first, second = [await service.pipeline.select(ask(service), sampling, 1, "llama2") for _ in range(2)]
    assert first.winner.candidate.text == second.winner.candidate.text
