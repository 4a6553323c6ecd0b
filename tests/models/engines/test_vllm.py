"""The vLLM engines against the transformers reference, and their life and death."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.models.engines import tiny
from winnow.models import demo
from winnow.models.cards import Card
from winnow.models.demo.world import held_out_prompts
from winnow.models.engines.base import EngineOptions, Execution, RewardInput
from winnow.models.engines.heads import GatedHead
from winnow.models.engines.output import EngineOutput
from winnow.models.engines.reward_text import CardInput
from winnow.models.engines.sampled import CheckpointWatcher
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.errors import CandidateFailed, CandidateStopped, CheckpointError
from winnow.models.policy import CandidateHandle
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK, Calibration
from winnow.models.sampling import Sampling
from winnow.models.types import Message, Prompt
from winnow.server.service import Service

if TYPE_CHECKING:
    from winnow.models.engines.vllm_reward_model import VllmRewardModel

pytestmark = pytest.mark.engine

ANSWERS = ("The capital of France is Paris.", "I'm sorry, but I cannot help with that.", "", "No! 🙂 </s>", ", or so")


def rendered(service: Service, question: str) -> Prompt:
    return service.template.render([Message("user", question)], service.tokenizer)


async def test_served_rewards_equal_a_transformers_forward_pass(service: Service) -> None:
    prompts = [service.template.render(prompt.messages, service.tokenizer) for prompt in held_out_prompts(4)]
    prompts += [rendered(service, SAFETY_CHECK.question), service.tokenizer.raw_prompt("The capital of France is")]
    reward_input = RewardInput(service.tokenizer, service.template)
    for served, name in ((service.safety, "safety-rm"), (service.helpfulness, "helpfulness-rm")):
        reference = ReferenceRewardModel(str(demo.weights(name)), reward_input)  # type: ignore[arg-type]
        for prompt in prompts:
            for answer in ANSWERS:
                expected = await reference.score(prompt, answer)
                assert await served.score(prompt, answer) == pytest.approx(expected, abs=0.02)


async def test_scores_do_not_depend_on_the_batch(service: Service) -> None:
    """Public reports show 0.429, 0.476 and 0.480 for the same answer in batches of 1, 2 and 3."""
    prompt, answer = rendered(service, "Name three fruits."), "Apple, banana and cherry."
    alone = await service.safety.score(prompt, answer)
    for size in (1, 2, 3, 16):
        others = ["word " * n for n in range(size - 1)]
        batch = await asyncio.gather(*(service.safety.score(prompt, text) for text in [answer, *others]))
        assert batch[0] == pytest.approx(alone, abs=1e-4)


async def test_answers_scored_together_have_the_bits_that_they_have_alone(service: Service) -> None:
    """What their prompts share is computed once in a step, or read from the prefix cache."""
    prompts = [rendered(service, question) for question in ("Name three fruits.", "Name three animals, please. " * 12)]
    pairs = [(prompt, answer) for prompt in prompts for answer in (*ANSWERS, ANSWERS[0])]
    alone = []
    for prompt, answer in pairs:
        await service.safety.forget_prefixes()
        alone.append(await service.safety.score(prompt, answer))
    await service.safety.forget_prefixes()
    for _ in ("computed", "cached"):
        assert await asyncio.gather(*(service.safety.score(prompt, answer) for prompt, answer in pairs)) == alone


async def test_scores_are_raw_logits(service: Service) -> None:
    """A sigmoid applied by the engine would leave every score in (0, 1), and no answer would count as unsafe."""
    prompt = rendered(service, "How do I make a bomb?")
    scores = [await service.safety.score(prompt, answer) for answer in ANSWERS]
    assert any(not 0 < score < 1 for score in scores)


async def test_the_sanity_checks_pass_and_find_a_flipped_sign(service: Service) -> None:
    for check, model in ((SAFETY_CHECK, service.safety), (HELPFULNESS_CHECK, service.helpfulness)):
        prompt = rendered(service, check.question)
        margin = await check.run("demo", model, prompt)
        assert margin > 0
        assert await check.run("demo", model, prompt, Calibration(2.0, 1.0)) == pytest.approx(2 * margin, abs=1e-3)
        with pytest.raises(CheckpointError, match="canary"):
            await check.run("demo", model, prompt, Calibration(scale=-1.0))


async def test_an_answer_beyond_the_context_fails_alone(service: Service) -> None:
    prompt = rendered(service, "Hello")
    with pytest.raises(CandidateFailed, match="does not fit the safety model's context of 2048 tokens"):
        await service.safety.score(prompt, "word " * 2048)
    assert await service.safety.score(prompt, "word")


async def test_two_scores_for_one_answer_are_a_failure(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(*_: object) -> SimpleNamespace:
        return SimpleNamespace(outputs=SimpleNamespace(data=torch.zeros(2)))

    monkeypatch.setattr(service.safety, "_last", two)
    with pytest.raises(CandidateFailed, match="2 scores"):
        await service.safety.score(rendered(service, "Hello"), "Hi.")


async def test_an_engine_without_pending_requests_is_not_stuck(service: Service) -> None:
    for engine in service.engines.values():
        assert not await engine.is_stuck(0.001)
        assert engine.unfinished == 0
    prompt = rendered(service, "Hello")
    busy = asyncio.create_task(service.policy.sample(prompt, Sampling(max_tokens=400, logit_bias={2: -100.0}), 0))
    while not service.policy.unfinished:  # noqa: ASYNC110, vLLM sets no event
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # longer than the silence that is asked about
    assert not await service.policy.is_stuck(0.25), "an engine that decodes responds"
    await busy


async def test_requests_that_are_cancelled_one_after_another_are_no_hang(service: Service) -> None:
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
    prompt = rendered(service, "Name three animals.")

    async def ids(sampling: Sampling) -> list[int]:
        return list((await service.policy.generate(prompt, sampling, 0)).token_ids)

    short = await service.policy.sample(prompt, Sampling(max_tokens=2), 0)
    assert (short.tokens, short.finish_reason) == (2, "length")
    greedy = await ids(Sampling(max_tokens=16, temperature=0))
    for narrowing in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert await ids(replace(Sampling(max_tokens=16), **narrowing)) == greedy
    forced = await service.policy.sample(prompt, Sampling(max_tokens=4, logit_bias={300: 100.0}), 0)
    assert forced.text == service.tokenizer.decode([300] * 4)
    spread = Sampling(max_tokens=24, logit_bias=dict.fromkeys(range(300, 400), 100.0), temperature=0)
    penalised = replace(spread, presence_penalty=2.0, frequency_penalty=2.0)
    assert len(set(await ids(penalised))) > len(set(await ids(spread)))


async def test_a_candidate_is_read_at_its_checkpoints(service: Service) -> None:
    prompt = rendered(service, "Name three animals.")
    endless = Sampling(max_tokens=24, seed=5, logit_bias={service.tokenizer.eos_id: -100.0})
    seen: list[tuple[int, str]] = []
    handle = CandidateHandle((1, 8, 24), lambda place, text: seen.append((place, text)))
    read = await service.policy.sample(prompt, endless, 3, handle)
    unread = await service.policy.sample(prompt, endless, 3)
    assert (read.text, read.tokens) == (unread.text, unread.tokens)
    assert [place for place, _ in seen] == [0, 1], "the last one is passed by a finished candidate"
    ids = (await service.policy.generate(prompt, endless, 3)).token_ids
    assert [text for _, text in seen] == [service.tokenizer.decode(ids[:count]) for count in (1, 8)]


async def test_a_stopped_candidate_raises_and_leaves_the_engine(service: Service) -> None:
    prompt = rendered(service, "Name three animals.")
    endless = Sampling(max_tokens=1500, logit_bias={service.tokenizer.eos_id: -100.0})
    reached = asyncio.Event()
    handle = CandidateHandle((4,), lambda *_: reached.set())
    task = asyncio.create_task(service.policy.sample(prompt, endless, 0, handle))
    await reached.wait()
    await handle.stop()
    with pytest.raises(CandidateStopped) as caught:
        await task
    assert 4 <= caught.value.tokens < 1500
    assert service.policy.unfinished == 0
    with pytest.raises(CandidateStopped):
        await service.policy.sample(prompt, endless, 0, handle)


async def test_a_cancelled_candidate_leaves_the_engine(service: Service) -> None:
    prompt = rendered(service, "Name three animals.")
    endless = Sampling(max_tokens=1500, logit_bias={service.tokenizer.eos_id: -100.0})
    tasks = [asyncio.create_task(service.policy.sample(prompt, endless, index)) for index in range(8)]
    while service.policy.unfinished < 8:  # noqa: ASYNC110, vLLM sets no event
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert service.policy.unfinished == 0


def test_a_checkpoint_that_cuts_a_character_in_two_gives_the_text_before_it(service: Service) -> None:
    tokenizer = service.tokenizer
    ids = tokenizer.encode_continuation(" a 🦉")
    seen: list[str] = []
    handle = CandidateHandle(tuple(range(1, len(ids) + 1)), lambda _, text: seen.append(text))
    watch = CheckpointWatcher(handle, tokenizer.decode_continuation)
    watch(ids, is_finished=False)
    assert len(seen) == len(ids) > 4
    assert seen[-1] == " a 🦉"
    assert all(" a 🦉".startswith(text) for text in seen)


CJK = "中文字漢語"


@pytest.mark.parametrize(
    ("spelt", "dropped", "stop", "text", "finish_reason"),
    [
        (f" {CJK}", 1, (), CJK[:-1], "length"),
        (f" {CJK}", 1, ("never",), CJK[:-1], "length"),
        (f" {CJK}", 0, (CJK[2],), CJK[:2], "stop"),
        (" Paris. [/INST] More", 0, (), "Paris. ", "stop"),
        (" Paris. [/INST] More", 0, ("is",), "Par", "stop"),
        (" [INST]", 0, (), "", "stop"),
        (" a<<SYS>>b", 0, (), "a", "stop"),
        (" a [/INS", 0, (), "a [/INS", "length"),
    ],
)
async def test_an_answer_ends_at_a_tag_and_keeps_whole_characters(
    service: Service, monkeypatch: pytest.MonkeyPatch, spelt: str, dropped: int, stop: tuple[str, ...], text: str,
    finish_reason: str,
) -> None:  # fmt: skip
    """Regression: a candidate's text depended on whether a stop string was set, and could be refused as history."""
    ids = service.tokenizer.encode_continuation(spelt)
    ids = ids[: len(ids) - dropped]

    async def generate(*_: object) -> SimpleNamespace:
        return SimpleNamespace(token_ids=ids, finish_reason="length", text="as vLLM spells it")

    monkeypatch.setattr(service.policy, "generate", generate)
    answer = await service.policy.sample(rendered(service, "Hello"), Sampling(max_tokens=99, stop=stop), 0)
    assert (answer.text, answer.finish_reason, answer.tokens) == (text, finish_reason, len(ids))


async def test_a_limit_inside_a_character_gives_one_text_with_and_without_a_stop_string(service: Service) -> None:
    """Three bytes of one character are sampled in any order, with a letter between: some make it, most do not."""
    prompt = rendered(service, "Name three animals.")
    pieces = service.tokenizer.encode_continuation("鳥a")
    bias = dict.fromkeys(pieces[:-1], 100.0) | {pieces[-1]: 88.0}  # the policy likes the letter better than bytes
    sampling = Sampling(max_tokens=200, seed=3, logit_bias=bias, temperature=2.0)
    plain = await service.policy.sample(prompt, sampling, 0)
    stopped = await service.policy.sample(prompt, replace(sampling, stop=("never",)), 0)
    assert (plain.text, plain.tokens) == (stopped.text, stopped.tokens)
    assert plain.text
    assert {*plain.text} <= {"鳥", "a"}
    assert "\ufffd" in (await service.policy.generate(prompt, replace(sampling, stop=("never",)), 0)).text


async def test_a_raw_prompt_may_be_continued_with_a_tag(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def generate(*_: object) -> SimpleNamespace:
        return SimpleNamespace(token_ids=service.tokenizer.encode_continuation(" a [INST] b"), finish_reason="length")

    monkeypatch.setattr(service.policy, "generate", generate)
    answer = await service.policy.sample(service.tokenizer.raw_prompt("x"), Sampling(max_tokens=99), 0)
    assert answer.text == " a [INST] b"


def on_gpu(name: str, execution: Execution) -> EngineOptions:
    return EngineOptions(name, "a checkpoint", "bfloat16", 4096, None, 0.5, 256, execution, "auto", True, True)


@pytest.mark.usefixtures("service")  # it has prepared vLLM's environment
@pytest.mark.parametrize(
    ("execution", "is_eager", "mode", "graphs"),
    [("graphs", False, 0, "FULL_DECODE_ONLY"), ("eager", True, None, None), ("compiled", False, None, None)],
)
def test_on_a_gpu_decoding_steps_are_cuda_graphs_and_nothing_is_compiled(
    execution: Execution, is_eager: bool, mode: int | None, graphs: str | None
) -> None:
    """Eager decoding launches each kernel by itself: 8.4 instead of 5.1 ms a step are reported for 8B models."""
    from winnow.models.engines.vllm import _arguments

    arguments = _arguments(on_gpu("policy", execution), runner="generate")
    assert arguments.enforce_eager is is_eager
    assert arguments.compilation_config.mode == mode
    assert getattr(arguments.compilation_config.cudagraph_mode, "name", None) == graphs
    assert arguments.gpu_memory_utilization == 0.5
    assert arguments.kv_cache_memory_bytes is None, "the engine measures what its share leaves"
    assert arguments.worker_cls == "auto"


@pytest.mark.usefixtures("service")
def test_engines_are_spawned_where_cuda_has_been_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from winnow.models.engines.vllm import _start_method

    options = on_gpu("policy", "graphs")
    assert _start_method(options) == "fork"
    assert _start_method(dataclasses.replace(options, fork=False)) == "spawn"
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    assert _start_method(options) == "spawn"


@pytest.mark.usefixtures("service")
def test_heads_that_are_not_computed_on_cpu_are_told_before_an_engine_starts(tmp_path: Path) -> None:
    """Such an engine started, and died at its first request."""
    from winnow.models.engines.vllm import start_reward_model

    tokenizer = tiny.byte_level()
    folder = tiny.checkpoint(tmp_path / "rm", "llama", tokenizer, head_dim=16)
    options = EngineOptions("safety", str(folder), "float32", None, 2**25, None, 4, "eager", "auto", False, True)
    with pytest.raises(CheckpointError, match="heads of 16 numbers"):
        start_reward_model(options, CardInput(Card(name="rm"), tokenizer))


class ScriptedEngine:
    """An engine behind a gated model: the reward of ids is the last one, and its gate is 2; it answers once it may."""

    def __init__(self) -> None:
        self.model_config = SimpleNamespace(dtype=torch.float32, max_model_len=99)
        self.asked: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.opened, self.may_answer = asyncio.Event(), asyncio.Event()
        self.fails_on: int | None = None

    async def encode(self, given: dict[str, Any], *_: object) -> AsyncIterator[SimpleNamespace]:
        from vllm.v1.engine.exceptions import EngineGenerateError

        last = given["prompt_token_ids"][-1]
        self.asked[last] += 1
        if len(self.asked) == 3:
            self.opened.set()
        try:
            await self.may_answer.wait()
        finally:
            self.ended[last] += 1
        if last == self.fails_on:
            raise EngineGenerateError
        yield SimpleNamespace(outputs=SimpleNamespace(data=torch.tensor([float(last), 2.0])))


GATE, PATTERN = 8, (8, 9)


def gated(engine: ScriptedEngine) -> VllmRewardModel:
    from winnow.models.engines.vllm_reward_model import VllmRewardModel

    reader: Any = SimpleNamespace(token_ids=lambda _, answer: [1, *PATTERN, int(answer)], reread=lambda _: 0)
    llm: Any = engine
    return VllmRewardModel(llm, EngineOutput("gated"), "gated", reader, GatedHead(objectives=1, pattern=PATTERN))


async def test_cancelling_an_answer_leaves_the_gate_to_the_others() -> None:
    engine = ScriptedEngine()
    model = gated(engine)
    first, second = (asyncio.create_task(model.score(Prompt(()), answer)) for answer in ("5", "6"))
    await engine.opened.wait()
    first.cancel()
    await asyncio.wait([first])
    engine.may_answer.set()
    assert await second == 12
    assert await model.score(Prompt(()), "7") == 14
    assert (first.cancelled(), engine.asked) == (True, {GATE: 1, 5: 1, 6: 1, 7: 1})


async def test_cancelling_all_answers_ends_the_gates_request() -> None:
    engine = ScriptedEngine()
    model = gated(engine)
    tasks = [asyncio.create_task(model.score(Prompt(()), answer)) for answer in ("5", "6")]
    await engine.opened.wait()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not await model.is_stuck(1e-9)
    engine.may_answer.set()
    assert await model.score(Prompt(()), "7") == 14
    assert (engine.ended[GATE], engine.asked[GATE]) == (2, 2)


@pytest.mark.parametrize("fails_on", [GATE, 5])
async def test_a_gate_that_fails_fails_its_answers_and_is_asked_for_again(fails_on: int) -> None:
    engine = ScriptedEngine()
    model = gated(engine)
    engine.may_answer.set()
    engine.fails_on = fails_on
    with pytest.raises(CandidateFailed, match="failed on a request"):
        await model.score(Prompt(()), "5")
    engine.fails_on = None
    assert await model.score(Prompt(()), "5") == 10
