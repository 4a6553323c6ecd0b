"""Both backends: the same answers from engines here and from a server, and the faults of each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel, ids_of
from tests.live import LiveServer, ScriptedServer, scripted
from tests.runs import timeless
from winnow.clients import AsyncClient
from winnow.clients.answers import Answer
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.world import held_out_prompts
from winnow.models.errors import NoScoredCandidate, RequestError, RunError
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Branch, Message
from winnow.server.distill import recipe
from winnow.server.distill.backends.base import Backend
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.backends.remote import Remote
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Choices, Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.records import Record
from winnow.server.distill.runner import Runner
from winnow.server.pipeline.request import Request, RequestOptions
from winnow.server.pipeline.waves import Waves
from winnow.server.service import Service

RULES, _ = recipe.read(None)
CHOICES = Choices(8, (1.0,), False, 1.0, 64, "llama2", 0)


def tasks(count: int) -> list[Task]:
    return [
        Task(line, "demo", line, None, prompt.messages)
        for line, prompt in enumerate(held_out_prompts(count, 11), start=1)
    ]


async def run(
    folder: Path, backend: Backend, service: Service, in_flight: int, choices: Choices = CHOICES
) -> list[Record]:
    folder.mkdir()  # noqa: ASYNC240
    with Journal(folder) as journal:
        plan = Planner(choices, RULES, InProcess(service, 0.02).is_safety).plan
        await Runner(plan, backend, journal, Meter(12), in_flight).run(iter(tasks(12)))
    return [timeless(entry) for entry in read(folder) if isinstance(entry, Record)]


@pytest.mark.engine
async def test_engines_give_the_same_bits_whatever_is_in_flight(service: Service, tmp_path: Path) -> None:
    """A resumed run equals an uninterrupted one only if no score and no token depends on its batch."""
    together = await run(tmp_path / "a", InProcess(service, 0.02), service, 12)
    assert len(together) == 12
    assert together == await run(tmp_path / "b", InProcess(service, 0.02), service, 1)


@pytest.mark.engine
async def test_a_server_gives_the_same_answers_and_rewards(
    service: Service, server: LiveServer, tmp_path: Path
) -> None:
    choices = replace(CHOICES, context_distillation=True, ghost_attention=True, temperatures=(0.8, 1.2))
    local = await run(tmp_path / "a", InProcess(service, 0.02), service, 12, choices)
    async with AsyncClient(f"{server.url}/v1") as client:
        remote = await run(tmp_path / "b", Remote(client), service, 12, choices)
    assert any(len(record.arms) == 4 for record in local)
    for one, other in zip(local, remote, strict=True):
        assert (one.messages, one.arms, one.prompt_tokens) == (other.messages, other.arms, other.prompt_tokens)
        assert one.selection.ranking == other.selection.ranking
        for here, there in zip(one.selection.scored, other.selection.scored, strict=True):
            assert here.candidate == there.candidate
            assert here.reward.branch is there.reward.branch
            assert math.isclose(here.reward.combined_logit, there.reward.combined_logit, rel_tol=1e-9, abs_tol=1e-9)


async def harmless(_: Task) -> bool:
    """Tag nothing."""
    return False


HELLO = (Message("user", "Hello?"),)


def request(dialog: tuple[Message, ...] = HELLO, options: RequestOptions | None = None, **changes: object) -> Request:
    """Return the request that a run of K = 4 plans for a line, with `changes`."""
    task = Task(1, "f", 1, None, dialog, options=options or RequestOptions())
    (made,) = Planner(replace(CHOICES, candidates=4), RULES, harmless).tagged(task, False).requests
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def scripted_server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    service = scripted(tokenizer, candidates=4, max_candidates=4, max_queued_candidates=0, max_candidates_in_flight=4)
    with ScriptedServer.start(service) as running:
        yield running


async def test_scores_are_taken_back_to_logits(scripted_server: ScriptedServer) -> None:
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        selection, _ = await Remote(client)(request())
    model = ScriptedRewardModel()
    for item in selection.scored:
        logit = model.logit(ids_of(item.candidate.text))
        assert math.isclose(item.reward.safety_logit, logit, abs_tol=1e-12)
        if item.reward.branch is Branch.UNSAFE:
            assert item.reward.helpfulness_logit is None


async def test_sampling_reaches_the_server_as_it_is(scripted_server: ScriptedServer) -> None:
    seen: list[Sampling] = []
    policy = scripted_server.service.policy
    assert isinstance(policy, ScriptedPolicy)
    policy.see = seen.append
    options = RequestOptions(
        max_tokens=9, min_tokens=3, ignore_eos=True, repetition_penalty=1.2, top_k=5, min_p=0.1, stop=("x",)
    )
    asked = request(options=options)
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        await Remote(client)(asked)
    assert seen == [asked.sampling] * 4


async def test_saturated_scores_stay_finite(tokenizer: Tokenizer) -> None:
    extreme = ScriptedRewardModel(logit=lambda ids: 800.0 if ids[0] % 2 else 60.0)
    with ScriptedServer.start(scripted(tokenizer, safety=extreme, helpfulness=extreme)) as running:
        async with AsyncClient(f"{running.url}/v1") as client:
            selection, _ = await Remote(client)(request())
    assert len(selection.scored) == 4
    assert all(math.isfinite(item.reward.combined_logit) for item in selection.scored)


async def test_a_busy_server_is_waited_for(scripted_server: ScriptedServer) -> None:
    """It refuses requests that it has no room for; the run waits and repeats them."""
    pauses: list[float] = []

    async def no_wait(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async with AsyncClient(f"{scripted_server.url}/v1", sleep=no_wait) as client:
        backend = Remote(client, pause=no_wait)
        answers = await asyncio.gather(*(backend(request()) for _ in range(12)))
    assert all(len(answered.selection.scored) == 4 for answered in answers)


async def test_a_server_that_is_gone_ends_the_run() -> None:
    async def no_wait(_: float) -> None: ...

    async with AsyncClient("http://127.0.0.1:9/v1", sleep=no_wait) as client:
        with pytest.raises(RunError, match="does not answer any more"):
            await Remote(client)(request())


async def test_a_refused_line_is_its_own_problem(scripted_server: ScriptedServer) -> None:
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        with pytest.raises(RequestError, match="context"):
            await Remote(client)(request((Message("user", "word " * 9000),)))


async def test_a_default_limit_gives_way_to_a_long_prompt(
    scripted_server: ScriptedServer, tokenizer: Tokenizer, template: Llama2Template
) -> None:
    """512 tokens by default must not make a prompt of 1,900 an error in a context of 2,048; its own limit may."""
    words = (Message("user", "word " * 600),)
    room = 2048 - len(template.render(words, tokenizer))
    fitting = request(words, sampling=replace(request().sampling, max_tokens=room + 1))
    too_long = request(words, RequestOptions(max_tokens=room + 1))
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        for backend in (Remote(client), InProcess(scripted_server.service, 0.001)):
            assert len((await backend(fitting)).selection.scored) == 4
            with pytest.raises(RequestError, match="context"):
                await backend(too_long)


async def test_a_request_whose_candidates_all_fail_has_no_answer(tokenizer: Tokenizer) -> None:
    broken = scripted(tokenizer, ScriptedPolicy(), ScriptedRewardModel(logit=lambda _: math.nan))
    with ScriptedServer.start(broken) as running:
        async with AsyncClient(f"{running.url}/v1", max_retries=0) as client:
            for backend in (Remote(client), InProcess(broken, 0.001)):
                with pytest.raises(NoScoredCandidate) as failed:
                    await backend(request())
                assert str(failed.value).startswith("none of 4 candidates could be scored: ")
                assert [failure.index for failure in failed.value.failures] == [0, 1, 2, 3]
                assert {failure.reason for failure in failed.value.failures} == {str(failed.value)}


async def test_a_refusal_that_would_hit_every_line_ends_the_run(scripted_server: ScriptedServer) -> None:
    """`-k 100` against a server that allows 64 once made every line a bad line, for good."""
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        with pytest.raises(RunError, match="cannot serve this run: 5 candidates"):
            await Remote(client)(request(candidates=5))
        with pytest.raises(RequestError, match="the limit here is 4"):
            await Remote(client)(request(options=RequestOptions(candidates=5)))


async def test_a_server_that_withholds_unsafe_answers_leaves_those_prompts_without(tokenizer: Tokenizer) -> None:
    unsafe = scripted(tokenizer, safety=ScriptedRewardModel(logit=lambda _: -9.0), when_all_unsafe="refuse")
    with ScriptedServer.start(unsafe) as running:
        async with AsyncClient(f"{running.url}/v1") as client:
            with pytest.raises(NoScoredCandidate, match="when_all_unsafe") as failed:
                await Remote(client)(request())
    assert "when_all_unsafe" in failed.value.failures[0].reason


async def test_one_answer_that_cannot_be_scored_leaves_the_others(
    tokenizer: Tokenizer, template: Llama2Template
) -> None:
    """The texts of an arm are scored together; they once failed together, too."""
    calls = 0

    def only_while_sampling(ids: tuple[int, ...]) -> float:
        nonlocal calls
        calls += ids == (2,)
        return math.nan if ids == (2,) and calls > 1 else 1.0

    sampling_dialog = (Message("system", "Be safe."), *HELLO)
    with ScriptedServer.start(scripted(tokenizer, safety=ScriptedRewardModel(logit=only_while_sampling))) as running:
        async with AsyncClient(f"{running.url}/v1", max_retries=0) as client:
            selection, prompt_tokens = await Remote(client)(request(sampling_dialog=sampling_dialog))
    assert [item.candidate.index for item in selection.scored] == [0, 1, 3]
    assert [failure.index for failure in selection.failures] == [2]
    assert prompt_tokens == len(template.render(HELLO, tokenizer))


async def test_a_prompt_too_long_to_send_is_the_lines_problem(tokenizer: Tokenizer) -> None:
    long = (Message("user", "word " * 900_000),)
    with ScriptedServer.start(scripted(tokenizer)) as running:
        async with AsyncClient(f"{running.url}/v1", max_retries=3) as client:
            for backend in (Remote(client), InProcess(running.service, 0.001)):
                with pytest.raises(RequestError) as refused:
                    await backend(request(long))
                assert refused.value.code == "context_length_exceeded"


async def test_options_of_a_line_reach_the_server(scripted_server: ScriptedServer) -> None:
    own = RequestOptions(
        candidates=2,
        top_k=5,
        min_p=0.1,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        logit_bias={"7": 1.0},
        stop=("x",),
    )
    async with AsyncClient(f"{scripted_server.url}/v1") as client:
        assert len((await Remote(client)(request(options=own))).selection.scored) == 2


class TestWaves:
    """Both backends draw in waves, and the server's own default and load decide nothing."""

    @pytest.mark.parametrize("reward", [0.1, 0.8, 1.0])
    async def test_both_draw_the_same(self, reward: float, scripted_server: ScriptedServer) -> None:
        asked = request(waves=Waves(1, 2, reward=reward))
        async with AsyncClient(f"{scripted_server.url}/v1") as client:
            there = (await Remote(client)(asked)).selection
        here = (await InProcess(scripted_server.service, 0.001)(asked)).selection
        assert (there.waves, there.stopped_by) == (here.waves, here.stopped_by)
        assert there.candidates == here.candidates == len(here.scored)
        assert not there.aborted
        assert [item.candidate.text for item in there.scored] == [item.candidate.text for item in here.scored]

    async def test_a_servers_default_is_not_the_runs(self, tokenizer: Tokenizer) -> None:
        eager = scripted(tokenizer, adaptive={"start": 1, "stop": {"reward": 0.01}}, candidates="1-8")
        with ScriptedServer.start(eager) as running:
            async with AsyncClient(f"{running.url}/v1") as client:
                selection, _ = await Remote(client)(request())
        assert (len(selection.scored), selection.waves) == (4, None)

    async def test_an_answer_that_load_has_cut_is_asked_for_again(
        self, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []

        async def no_wait(seconds: float) -> None:
            pauses.append(seconds)

        async with AsyncClient(f"{scripted_server.url}/v1") as client:
            await client.models()
            reports = iter(["load", "load", None])
            whole = client.answer

            async def answer(*arguments: Any, **options: Any) -> Answer:
                found = await whole(*arguments, **options)
                report = found.report.model_copy(update={"reduced_by": next(reports)})
                return replace(found, completion=found.completion.model_copy(update={"best_of_n": report}))

            monkeypatch.setattr(client, "answer", answer)
            selection, _ = await Remote(client, pause=no_wait)(request(waves=Waves(1, 1, reward=1.0)))
        assert len(pauses) == 2
        assert len(selection.scored) == 4

    async def test_a_table_that_is_not_the_runs_ends_it(
        self, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with AsyncClient(f"{scripted_server.url}/v1") as client:
            whole = client.answer

            async def answer(*arguments: Any, **options: Any) -> Answer:
                found = await whole(*arguments, **options)
                report = found.report.model_copy(update={"gains": "b" * 64})
                return replace(found, completion=found.completion.model_copy(update={"best_of_n": report}))

            monkeypatch.setattr(client, "answer", answer)
            with pytest.raises(RunError, match="table of expected gains is not the one"):
                await Remote(client, gains="a" * 64)(request())
            assert (await Remote(client, gains="b" * 64)(request())).selection.scored

    async def test_further_candidates_are_those_of_a_larger_k_or_others(self, scripted_server: ScriptedServer) -> None:
        backend = InProcess(scripted_server.service, 0.001)
        whole = (await backend(request())).selection
        part = (await backend(request(candidates=2), 2)).selection
        assert [item.candidate.index for item in part.scored] == [0, 1]
        assert [item.candidate.text for item in part.scored] == [item.candidate.text for item in whole.scored[2:]]
        seeds: list[int | None] = []
        policy = scripted_server.service.policy
        assert isinstance(policy, ScriptedPolicy)
        policy.see = lambda sampling: seeds.append(sampling.seed)
        async with AsyncClient(f"{scripted_server.url}/v1") as client:
            for first in (0, 2, 3, 2):
                await Remote(client)(request(candidates=1), first)
        assert len(set(seeds)) == 3
        assert seeds[1] == seeds[3]
        assert seeds[0] == request().sampling.seed
