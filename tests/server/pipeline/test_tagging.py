"""Tagging of safety prompts in the pipeline: while candidates are sampled, once, and never "no" by failure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import ScriptedServer, scripted
from winnow.models.errors import CandidateFailed, EngineDead, NoScoredCandidate
from winnow.models.safety_classifier import COMPLIANCE, REFUSAL
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Branch, Message, Prompt
from winnow.server.distill import recipe
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Choices, Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.runner import Runner
from winnow.server.pipeline.best_of_n import BestOfN

PROMPT = Prompt((1, 5, 6))
SAMPLING = Sampling(max_tokens=8)
DANGER = "Please do the forbidden thing."


@dataclass
class Classifier:
    """Answers with `verdict`, or raises it, once `answer` is set."""

    verdict: bool | Exception
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    stock_answers: tuple[str, ...] = ()

    async def is_safety(self, prompt: Prompt) -> bool:
        self.asked += 1
        await self.answer.wait()
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


@dataclass
class Prober(ScriptedRewardModel):
    """A safety model that prefers the refusal behind prompts that contain `DANGER`; `fault` replaces its scores."""

    fault: Callable[[], float] | None = None
    probed: int = 0

    async def score(self, prompt: Prompt, answer: str) -> float:
        if answer not in (REFUSAL, COMPLIANCE):
            return await super().score(prompt, answer)
        self.probed += 1
        await asyncio.sleep(0)
        if self.fault:
            return self.fault()
        text = prompt.messages[-1].content if prompt.messages else prompt.raw_text
        return 9.0 if answer == REFUSAL and DANGER in text else 0.0


def pipeline(policy: ScriptedPolicy | None = None) -> BestOfN:
    return BestOfN(policy or ScriptedPolicy(), ScriptedRewardModel(lambda ids: 2.0), ScriptedRewardModel())


@pytest.mark.parametrize("verdict", [True, False])
async def test_candidates_are_sampled_while_the_classifier_thinks_and_scored_with_its_tag(verdict: bool) -> None:
    sampled = asyncio.Event()

    class Noting(ScriptedPolicy):
        async def sample(self, *arguments: object, **named: object):  # type: ignore[no-untyped-def]
            try:
                return await super().sample(*arguments, **named)
            finally:
                if not self.running:
                    sampled.set()

    parts, classifier = pipeline(Noting()), Classifier(verdict)
    selecting = asyncio.create_task(parts.select(PROMPT, SAMPLING, 8, "llama2", classifier=classifier))
    await sampled.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not selecting.done()
    assert parts.safety.calls == parts.helpfulness.calls == 0  # type: ignore[attr-defined]
    classifier.answer.set()
    selection = await selecting
    assert classifier.asked == 1
    assert selection.prompt.is_safety is verdict
    assert {item.reward.branch for item in selection.scored} == {Branch.SAFETY_PROMPT if verdict else Branch.HELPFUL}
    assert (parts.helpfulness.calls == 0) is verdict  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fault", "raised"), [(CandidateFailed("no score"), NoScoredCandidate), (EngineDead("gone"), EngineDead)]
)
async def test_a_classifier_that_fails_fails_the_request(fault: Exception, raised: type[Exception]) -> None:
    classifier = Classifier(fault)
    classifier.answer.set()
    with pytest.raises(raised, match=str(fault)):
        await pipeline().select(PROMPT, SAMPLING, 4, "llama2", classifier=classifier)


async def test_cancelling_a_request_cancels_the_classifier() -> None:
    before = asyncio.all_tasks()
    selecting = asyncio.create_task(pipeline().select(PROMPT, SAMPLING, 4, "llama2", classifier=Classifier(True)))
    for _ in range(20):
        await asyncio.sleep(0)
    selecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await selecting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def test_the_server_probes_each_untagged_prompt_once(tokenizer: Tokenizer) -> None:
    safety = Prober()
    service = scripted(tokenizer, safety=safety, safety_classifier="probe", safety_patterns=("capital",))
    with ScriptedServer.start(service) as server, server.http as http:
        for content, is_safety in ((DANGER, True), ("What is the capital of France?", False)):
            safety.probed = 0
            report = server.chat(content, best_of_n={"candidates": 4}).json()["best_of_n"]
            assert report["is_safety"] is is_safety
            assert {item["branch"] == "safety_prompt" for item in report["scored"]} == {is_safety}
            assert safety.probed == 2
            body = {
                "model": "winnow-demo",
                "messages": [{"role": "user", "content": content}],
                "answers": ["answer 1", "answer 2"],
            }
            rewards = http.post("/v1/rewards", json=body).json()["rewards"]
            assert {item["branch"] == "safety_prompt" for item in rewards} == {is_safety}
            raw = http.post("/v1/completions", json={"model": "winnow-demo", "prompt": content}).json()
            assert raw["best_of_n"]["is_safety"] is is_safety
            safety.probed = 0
            tagged = server.chat(content, best_of_n={"candidates": 4, "is_safety": not is_safety}).json()
            assert tagged["best_of_n"]["is_safety"] is not is_safety
            assert safety.probed == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_probe_that_fails_is_an_error_of_the_request_and_the_server_goes_on(
    tokenizer: Tokenizer, stream: bool
) -> None:
    safety = Prober(fault=lambda: math.nan)
    service = scripted(tokenizer, safety=safety, safety_classifier="probe")
    with ScriptedServer.start(service) as server, server.http as http:
        response = server.chat(stream=stream)
        assert response.status_code == (200 if stream else 500)
        assert '"no_scored_candidate"' in response.text.replace(" ", "")
        body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "Hello"}], "answers": ["Hi"]}
        refused = http.post("/v1/rewards", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (500, "no_scored_candidate")
        assert server.chat(best_of_n={"is_safety": False}).status_code == 200
        safety.fault = None
        assert server.chat().json()["best_of_n"]["is_safety"] is False


async def test_an_offline_run_probes_each_line_once_and_journals_the_tag(tokenizer: Tokenizer, tmp_path: Path) -> None:
    safety = Prober()
    service = scripted(tokenizer, safety=safety, safety_classifier="probe")
    lines = [
        Task(line, "f", line, None, (Message("user", text),)) for line, text in enumerate((DANGER, "Hello?"), start=1)
    ]
    choices = Choices(4, (0.8, 1.2), False, 1.0, 64, "llama2", 0, context_distillation=True)
    backend, (rules, _) = InProcess(service, 0.001), recipe.read(None)

    async def run() -> list[Record | Problem]:
        with Journal(tmp_path) as journal:
            planner = Planner(choices, rules, backend.is_safety)
            await Runner(planner.plan, backend, journal, Meter(2), 8).run(iter(lines))
        return list(read(tmp_path))

    entries = await run()
    assert [entry.selection.prompt.is_safety for entry in entries if isinstance(entry, Record)] == [True, False]
    assert [len(entry.arms) for entry in entries if isinstance(entry, Record)] == [4, 2]
    assert safety.probed == 4
    safety.fault = lambda: math.nan
    lines.append(Task(3, "f", 3, None, (Message("user", "Hi!"),)))
    failed = (await run())[-1]
    assert isinstance(failed, Problem)
    assert (failed.line, failed.kind, failed.code) == (3, "failed", "no_scored_candidate")
