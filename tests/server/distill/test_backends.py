"""Both ways to have candidates sampled and scored, on the real engines: the same answers, bit for bit in this process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import LiveServer, ScriptedServer, scripted
from winnow.clients import AsyncClient
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.world import held_out_prompts
from winnow.models.errors import RequestError, RunError
from winnow.models.types import Branch, Message
from winnow.server.distill import recipe
from winnow.server.distill.backends import InProcess, Remote, Way
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.meter import Meter
from winnow.server.distill.parser import Overrides, Task
from winnow.server.distill.plans import Choices, Draw, plan
from winnow.server.distill.records import Record
from winnow.server.distill.runner import Run
from winnow.server.service import Service

RULES, _ = recipe.read(None)
CHOICES = Choices(8, (1.0,), False, 1.0, 64, "llama2", 0)


def tasks(count: int) -> list[Task]:
    return [
        Task(line, "demo", line, None, "", prompt.messages)
        for line, prompt in enumerate(held_out_prompts(count, 11), start=1)
    ]


async def sit(folder: Path, way: Way, service: Service, in_flight: int, choices: Choices = CHOICES) -> list[Record]:
    folder.mkdir()  # noqa: ASYNC240
    with Journal(folder) as journal:
        run = Run(lambda task: plan(task, choices, RULES, service.tagger), way, journal, Meter(12), in_flight)
        await run(iter(tasks(12)))
    return [replace(entry, seconds=0.0) for entry in read(folder) if isinstance(entry, Record)]


@pytest.mark.engine
async def test_the_real_engines_give_the_same_bits_however_much_is_under_way(service: Service, tmp_path: Path) -> None:
    """A resumed run equals an undisturbed one only if no score and no token depends on what else was computed beside it."""
    together = await sit(tmp_path / "a", InProcess(service, 0.02), service, 12)
    assert len(together) == 12
    assert together == await sit(tmp_path / "b", InProcess(service, 0.02), service, 1)


@pytest.mark.engine
async def test_a_server_gives_the_same_answers_and_rewards(
    service: Service, server: LiveServer, tmp_path: Path
) -> None:
    choices = replace(CHOICES, context_distillation=True, ghost_attention=True, temperatures=(0.8, 1.2))
    mine = await sit(tmp_path / "a", InProcess(service, 0.02), service, 12, choices)
    async with AsyncClient(f"{server.url}/v1") as client:
        theirs = await sit(tmp_path / "b", Remote(client), service, 12, choices)
    assert any(len(record.arms) == 4 for record in mine)
    for one, other in zip(mine, theirs, strict=True):
        assert one.ranking == other.ranking
        assert one.messages == other.messages
        for here, there in zip(one.answers, other.answers, strict=True):
            assert (here.index, here.arm, here.text, here.tokens) == (there.index, there.arm, there.text, there.tokens)
            assert here.reward.branch is there.reward.branch
            assert math.isclose(here.reward.combined_logit, there.reward.combined_logit, rel_tol=1e-9, abs_tol=1e-9)


def draw(**changes: object) -> Draw:
    task = Task(1, "f", 1, None, "", (Message("user", "Hello?"),))
    (made,) = plan(task, replace(CHOICES, candidates=4), RULES, lambda _: False).draws
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def scripted_server(template: Llama2Template) -> Iterator[ScriptedServer]:
    service = scripted(template, candidates=4, max_candidates=4, max_queued_candidates=0, max_candidates_in_flight=4)
    with ScriptedServer.start(service) as running:
        yield running


async def test_scores_are_taken_back_to_logits(scripted_server: ScriptedServer) -> None:
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        drawn = await Remote(client)(draw())
    model = ScriptedRewardModel()
    for item in drawn.scored:
        logit = model.logit((7, item.candidate.index))
        assert math.isclose(item.reward.safety_logit, logit, abs_tol=1e-12)
        if item.reward.branch is Branch.UNSAFE:
            assert item.reward.helpfulness_logit is None


async def test_saturated_scores_stay_finite(template: Llama2Template) -> None:
    extreme = ScriptedRewardModel(logit=lambda ids: 800.0 if ids[1] % 2 else 60.0)
    with ScriptedServer.start(scripted(template, safety=extreme, helpfulness=extreme)) as running:
        async with AsyncClient(f"{running.url}/v1") as client:
            drawn = await Remote(client)(draw())
    assert all(math.isfinite(item.reward.combined_logit) for item in drawn.scored)


async def test_a_busy_server_is_waited_for(scripted_server: ScriptedServer) -> None:
    """It refuses what it has no room for; the run takes its time instead of giving up."""
    pauses: list[float] = []

    async def no_wait(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async with AsyncClient(f"{scripted_server.url}/v1", sleep=no_wait) as client:
        way = Remote(client, pause=no_wait)
        drawn = await asyncio.gather(*(way(draw()) for _ in range(12)))
    assert all(len(part.scored) == 4 for part in drawn)


async def test_a_server_that_is_gone_ends_the_run() -> None:
    async def no_wait(_: float) -> None: ...

    async with AsyncClient("http://127.0.0.1:9/v1", sleep=no_wait) as client:
        with pytest.raises(RunError, match="does not answer any more"):
            await Remote(client)(draw())


async def test_what_the_server_refuses_is_the_lines_problem(scripted_server: ScriptedServer) -> None:
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        long = draw(messages=(Message("user", "word " * 9000),), behind=(Message("user", "word " * 9000),))
        with pytest.raises(RequestError, match="context"):
            await Remote(client)(long)


async def test_a_default_limit_gives_way_to_a_long_prompt(
    scripted_server: ScriptedServer, template: Llama2Template
) -> None:
    """512 tokens by default must not make a prompt of 1,900 an error in a context of 2,048; a limit of the line's own does."""
    words = (Message("user", "word " * 600),)
    room = 2048 - len(template.render(words))
    sampling = replace(draw().sampling, max_tokens=room + 1)
    fitting = draw(messages=words, behind=words, sampling=sampling)
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        for way in (Remote(client), InProcess(scripted_server.service, 0.001)):
            assert len((await way(fitting)).scored) == 4
            with pytest.raises(RequestError, match="context"):
                await way(replace(fitting, is_limit_own=True))


async def test_all_candidates_failing_is_no_answer_and_no_error(template: Llama2Template) -> None:
    broken = scripted(template, ScriptedPolicy(), ScriptedRewardModel(logit=lambda _: math.nan))
    with ScriptedServer.start(broken) as running:
        async with AsyncClient(f"{running.url}/v1", max_retries=0) as client:
            for way in (Remote(client), InProcess(broken, 0.001)):
                drawn = await way(draw())
                assert drawn.scored == ()
                assert [failure.index for failure in drawn.failures] == [0, 1, 2, 3]


async def test_what_every_line_would_be_refused_for_ends_the_run(scripted_server: ScriptedServer) -> None:
    """`-k 100` against a server that gives 64 once made every line a bad line, for good."""
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        with pytest.raises(RunError, match="cannot serve this run: 5 candidates asked for"):
            await Remote(client)(draw(candidates=5))
        with pytest.raises(RequestError, match="limit is 4"):
            await Remote(client)(draw(candidates=5, has_wishes=True))


async def test_a_server_that_keeps_unsafe_answers_back_leaves_those_prompts_without(template: Llama2Template) -> None:
    unsafe = scripted(template, safety=ScriptedRewardModel(logit=lambda _: -9.0), when_all_unsafe="refuse")
    with ScriptedServer.start(unsafe) as running:
        async with AsyncClient(f"{running.url}/v1") as client:
            drawn = await Remote(client)(draw())
    assert drawn.scored == ()
    assert "when_all_unsafe" in drawn.failures[0].reason


async def test_one_answer_that_cannot_be_judged_leaves_the_others(template: Llama2Template) -> None:
    """The texts of an arm are judged together; they once failed together, too."""
    calls = 0

    def sometimes(ids: tuple[int, ...]) -> float:
        nonlocal calls
        calls += 1
        return math.nan if ids == bad else 1.0

    bad = tuple(template.encode_answer("answer 2"))
    behind = (Message("system", "Be safe."), Message("user", "Hello?"))
    with ScriptedServer.start(scripted(template, safety=ScriptedRewardModel(logit=sometimes))) as running:
        async with AsyncClient(f"{running.url}/v1", max_retries=0) as client:
            drawn = await Remote(client)(draw(behind=behind))
    assert [item.candidate.index for item in drawn.scored] == [0, 1, 3]
    assert [failure.index for failure in drawn.failures] == [2]
    assert drawn.prompt_tokens == len(template.render(draw().messages))


async def test_a_prompt_too_long_to_send_is_the_lines_problem(template: Llama2Template) -> None:
    long = (Message("user", "word " * 900_000),)
    with ScriptedServer.start(scripted(template)) as running:
        async with AsyncClient(f"{running.url}/v1", max_retries=0) as client:
            for way in (Remote(client), InProcess(running.service, 0.001)):
                with pytest.raises(RequestError) as refused:
                    await way(draw(messages=long, behind=long))
                assert refused.value.code == "context_length_exceeded"


async def test_overrides_reach_the_server(scripted_server: ScriptedServer) -> None:
    own = Overrides(top_k=5, min_p=0.1, presence_penalty=0.5, frequency_penalty=0.5, logit_bias={7: 1.0}, stop=("x",))
    task = Task(1, "f", 1, None, "", (Message("user", "Hello?"),), overrides=own)
    (made,) = plan(task, replace(CHOICES, candidates=2), RULES, lambda _: False).draws
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        assert len((await Remote(client)(made)).scored) == 2
