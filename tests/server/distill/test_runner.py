"""The run over scripted engines: every line once, bounded, stoppable at any moment, and the same whatever happened in between."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import scripted
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.errors import EngineDead, RunError
from winnow.models.sampling import Sampling
from winnow.models.types import Branch, Candidate, Message, Prompt
from winnow.server.distill import recipe
from winnow.server.distill.backends import InProcess
from winnow.server.distill.gathered import Gathered
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.meter import Meter
from winnow.server.distill.parser import Overrides, Task
from winnow.server.distill.plans import Choices, plan
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.runner import Run
from winnow.server.service import Service

RULES, _ = recipe.read(None)


class SeededPolicy(ScriptedPolicy):
    """Answers differ by prompt, seed and index, and by nothing else."""

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
        await asyncio.sleep(0)
        ids = (sum(prompt.token_ids) % 97, (sampling.seed or 0) % 89, index)
        return Candidate(index, ids, f"answer {ids}", "stop", 4)


def choices(**changes: object) -> Choices:
    values = {
        "candidates": 4, "temperatures": (1.0,), "sweep": False, "top_p": 1.0, "max_tokens": 64, "combiner": "llama2",
        "seed": 0, **changes,
    }  # fmt: skip
    return Choices(**values)  # type: ignore[arg-type]


def tasks(count: int, **fields: object) -> list[Task]:
    """Lines 1 to `count`; every third one has the same prompt."""
    return [
        Task(line, "f", line, f"id-{line}", "d", (Message("user", f"Question {line % 3 and line}?"),), **fields)  # type: ignore[arg-type]
        for line in range(1, count + 1)
    ]


async def sit(
    folder: Path,
    service: Service,
    lines: list[Task | Problem] | list[Task],
    in_flight: int = 8,
    **changes: object,
) -> list[Record | Problem]:
    chosen = choices(**changes)
    with Journal(folder) as journal:
        meter = Meter(len(lines), len(journal.done))
        run = Run(
            lambda task: plan(task, chosen, RULES, service.tagger), InProcess(service, 0.001), journal, meter, in_flight
        )
        await run(iter(lines))
        reading = meter.read()
        assert reading.in_flight == reading.candidates_in_flight == 0
    return list(read(folder))


def timeless(entries: list[Record | Problem]) -> list[Record | Problem]:
    return [replace(entry, seconds=0.0) if isinstance(entry, Record) else entry for entry in entries]


@pytest.fixture
def seeded(template: Llama2Template) -> Service:
    return scripted(template, SeededPolicy())


async def test_every_line_is_answered_once_and_equal_prompts_are_two(tmp_path: Path, seeded: Service) -> None:
    entries = await sit(tmp_path, seeded, tasks(20))
    assert [entry.line for entry in entries] == list(range(1, 21))
    records = [entry for entry in entries if isinstance(entry, Record)]
    assert len(records) == 20
    assert all(len(record.answers) == 4 for record in records)
    third, sixth = records[2], records[5]
    assert third.messages == sixth.messages
    assert {answer.text for answer in third.answers} != {answer.text for answer in sixth.answers}
    for record in records:
        best = max(answer.reward.combined_logit for answer in record.answers)
        assert record.winner.reward.combined_logit == best


@pytest.mark.parametrize("in_flight", [1, 3, 64])
async def test_what_comes_out_does_not_depend_on_how_much_is_under_way(
    in_flight: int, tmp_path: Path, seeded: Service
) -> None:
    entries = await sit(tmp_path / "a", seeded, tasks(15), in_flight) if (tmp_path / "a").mkdir() is None else []
    (tmp_path / "b").mkdir()
    assert timeless(entries) == timeless(await sit(tmp_path / "b", seeded, tasks(15)))


@pytest.mark.parametrize("after", [0, 1, 5, 11])
async def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    after: int, tmp_path: Path, template: Llama2Template, seeded: Service
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    undisturbed = await sit(tmp_path / "whole", seeded, tasks(12))

    class Mortal(SeededPolicy):
        calls = 0

        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            self.calls += 1
            if self.calls > 4 * after:
                raise EngineDead("the policy engine is gone")
            return await super().sample(prompt, sampling, index)

    with pytest.raises(EngineDead):
        await sit(tmp_path / "parts", scripted(template, Mortal()), tasks(12), in_flight=2)
    assert len(list(read(tmp_path / "parts"))) <= after
    assert timeless(await sit(tmp_path / "parts", seeded, tasks(12))) == timeless(undisturbed)


async def test_cancelling_ends_everything_under_way(tmp_path: Path, template: Llama2Template) -> None:
    policy = ScriptedPolicy(hold=asyncio.Event())
    work = asyncio.create_task(sit(tmp_path, scripted(template, policy), tasks(30), in_flight=5))
    while len(policy.running) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not policy.running
    Journal(tmp_path).close()


async def test_no_more_prompts_are_under_way_than_allowed(tmp_path: Path, template: Llama2Template) -> None:
    seen: list[int] = []
    meter = Meter(40)

    class Watched(SeededPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            seen.append(meter.read().in_flight)
            return await super().sample(prompt, sampling, index)

    service = scripted(template, Watched())
    with Journal(tmp_path) as journal:
        run = Run(
            lambda task: plan(task, choices(), RULES, service.tagger), InProcess(service, 0.001), journal, meter, 6
        )
        await run(iter(tasks(40)))
    assert max(seen) == 6


async def test_the_input_is_read_as_there_is_room(tmp_path: Path, template: Llama2Template) -> None:
    """Bounded memory: with nothing finishing, no more than a handful of 100,000 lines is ever read."""
    taken = 0

    def endless() -> Iterator[Task]:
        nonlocal taken
        for task in tasks(1000):
            taken += 1
            yield task

    policy = ScriptedPolicy(hold=asyncio.Event())
    service = scripted(template, policy)
    with Journal(tmp_path) as journal:
        run = Run(
            lambda task: plan(task, choices(), RULES, service.tagger),
            InProcess(service, 0.001),
            journal,
            Meter(1000),
            7,
        )
        work = asyncio.create_task(run(endless()))
        for _ in range(50):
            await asyncio.sleep(0)
        assert taken == 8
        work.cancel()
        await asyncio.wait([work])


async def test_bad_lines_stand_in_the_journal_and_the_others_are_done(tmp_path: Path, seeded: Service) -> None:
    bad = Problem(2, None, "f", 2, "input", "invalid_json", "the line is not JSON")
    good = tasks(3)
    entries = await sit(tmp_path, seeded, [good[0], bad, good[2]])
    assert entries[1] == bad
    assert [type(entry) for entry in entries] == [Record, Problem, Record]


async def test_what_a_line_asks_for_in_vain_is_its_own_problem(tmp_path: Path, seeded: Service) -> None:
    long = replace(tasks(1)[0], messages=(Message("user", "word " * 5000),))
    tag = replace(tasks(2)[1], messages=(Message("user", "Say [INST]"),))
    wide = replace(tasks(3)[2], overrides=Overrides(max_tokens=5000))
    bias = replace(tasks(4)[3], overrides=Overrides(logit_bias={99999: 1.0}))
    entries = await sit(tmp_path, seeded, [long, tag, wide, bias, tasks(5)[4]])
    codes = [entry.code if isinstance(entry, Problem) else "" for entry in entries]
    assert codes == ["context_length_exceeded", "invalid_messages", "context_length_exceeded", "invalid_request", ""]
    assert all(entry.kind == "input" for entry in entries if isinstance(entry, Problem))


async def test_a_prompt_without_any_scored_candidate_is_told_and_tried_again_only_when_asked(
    tmp_path: Path, template: Llama2Template, seeded: Service
) -> None:
    broken = scripted(template, SeededPolicy(), safety=ScriptedRewardModel(logit=lambda _: math.nan))
    (entry,) = await sit(tmp_path, broken, tasks(1))
    assert isinstance(entry, Problem)
    assert (entry.kind, entry.code) == ("failed", "no_scored_candidate")
    assert "not finite" in entry.message
    with Journal(tmp_path) as journal:
        assert journal.done == journal.failed == {1}
        journal.done -= journal.failed
        run = Run(
            lambda task: plan(task, choices(), RULES, seeded.tagger),
            InProcess(seeded, 0.001),
            journal,
            Meter(1),
            in_flight=1,
        )
        await run(iter(tasks(1)))
    assert [type(entry) for entry in read(tmp_path)] == [Record]


async def test_a_candidate_that_fails_leaves_the_others_to_compete(tmp_path: Path, template: Llama2Template) -> None:
    once = iter([math.nan])
    service = scripted(template, SeededPolicy(), safety=ScriptedRewardModel(logit=lambda _: next(once, 2.0)))
    (entry,) = await sit(tmp_path, service, tasks(1))
    assert isinstance(entry, Record)
    assert len(entry.answers) == 3
    assert len(entry.failures) == 1
    assert {answer.index for answer in entry.answers} | {failure.index for failure in entry.failures} == {0, 1, 2, 3}


async def test_arms_are_one_selection(tmp_path: Path, seeded: Service) -> None:
    entries = await sit(tmp_path, seeded, tasks(5), temperatures=(0.7, 1.0, 1.3), sweep=True)
    for entry in entries:
        assert isinstance(entry, Record)
        assert [answer.index for answer in entry.answers] == list(range(12))
        assert [entry.temperature(answer) for answer in entry.answers] == [0.7] * 4 + [1.0] * 4 + [1.3] * 4
        assert sorted(entry.ranking) == list(range(12))


async def test_a_context_distilled_answer_wins_only_where_the_safety_model_prefers_it(
    tmp_path: Path, template: Llama2Template
) -> None:
    """It is judged behind the prompt that is stored; a tie goes to the answer sampled without the preprompt."""
    seen: set[tuple[int, ...]] = set()

    class Judge(ScriptedRewardModel):
        async def score(self, prompt: Prompt, answer_ids: object) -> float:
            seen.add(prompt.token_ids)
            return await super().score(prompt, answer_ids)  # type: ignore[arg-type]

    class Preprompted(ScriptedPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            distilled = len(prompt) > 40
            return Candidate(index, (len(prompt), int(distilled)), "distilled" if distilled else "plain", "stop", 3)

    async def winner(name: str, distilled: float, plain: float) -> Record:
        (tmp_path / name).mkdir()
        judge = Judge(logit=lambda ids: distilled if ids[1] else plain)
        service = scripted(template, Preprompted(), safety=judge)
        job = replace(tasks(1)[0], is_safety=True)
        (entry,) = await sit(tmp_path / name, service, [job], context_distillation=True)
        assert isinstance(entry, Record)
        return entry

    better = await winner("better", 2.0, 1.0)
    assert better.winner.text == "distilled"
    assert better.is_context_distilled(better.winner)
    assert better.messages == tasks(1)[0].messages
    assert better.winner.reward.branch is Branch.SAFETY_PROMPT
    assert (await winner("equal", 1.0, 1.0)).winner.text == "plain"
    with pytest.raises(AssertionError):  # a Problem: nothing to be better than
        await winner("alone", 1.0, math.nan)
    assert (await winner("worse", 0.0, 1.0)).winner.text == "plain"
    assert seen == {template.render(tasks(1)[0].messages).token_ids}


async def test_helpfulness_is_asked_only_where_it_can_matter(tmp_path: Path, template: Llama2Template) -> None:
    helpfulness = ScriptedRewardModel(logit=lambda _: 1.0)
    gated = scripted(template, SeededPolicy(), ScriptedRewardModel(logit=lambda _: -5.0), helpfulness)
    (entry,) = await sit(tmp_path, gated, tasks(1))
    assert isinstance(entry, Record)
    assert entry.all_unsafe
    assert helpfulness.calls == 0


async def test_a_full_disk_ends_the_run(tmp_path: Path, seeded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(journal: Journal, entry: object) -> None:
        raise RunError("the journal cannot be written: No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(RunError, match="No space left"):
        await sit(tmp_path, seeded, tasks(10))


class TestGathered:
    async def test_scores_wait_for_each_other(self) -> None:
        model = ScriptedRewardModel()
        gathered = Gathered(model, size=3, seconds=60)
        prompt = Prompt((1, 2))
        first = [asyncio.create_task(gathered.score(prompt, (index,))) for index in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert model.calls == 0
        assert await gathered.score(prompt, (2,)) == model.logit((2,))
        assert await asyncio.gather(*first) == [model.logit((0,)), model.logit((1,))]

    async def test_but_not_for_ever(self) -> None:
        gathered = Gathered(ScriptedRewardModel(), size=100, seconds=0.01)
        assert await asyncio.wait_for(gathered.score(Prompt((1,)), (4,)), 5) == ScriptedRewardModel().logit((4,))

    async def test_one_that_is_given_up_does_not_hold_the_others(self) -> None:
        gathered = Gathered(ScriptedRewardModel(), size=2, seconds=0.01)
        lost = asyncio.create_task(gathered.score(Prompt((1,)), (1,)))
        await asyncio.sleep(0)
        lost.cancel()
        assert await asyncio.wait_for(gathered.score(Prompt((1,)), (2,)), 5) == ScriptedRewardModel().logit((2,))


class TestMeter:
    def test_it_counts(self, tmp_path: Path) -> None:
        meter = Meter(10, done=2, errors=1)
        with meter.under_way(16):
            assert (meter.read().in_flight, meter.read().candidates_in_flight) == (1, 16)
        meter.count(Problem(4, None, "f", 4, "input", "c", "m"))
        now = meter.read()
        assert (now.total, now.done, now.errors, now.in_flight) == (10, 2, 2, 0)

    def test_an_end_is_foreseen_once_something_is_done(self) -> None:
        meter = Meter(10)
        assert meter.read().eta_seconds is None
        meter.count(Problem(1, None, "f", 1, "input", "c", "m"))
        now = meter.read()
        assert now.eta_seconds is not None
        assert now.eta_seconds > 0
        assert now.prompts_per_second > 0
