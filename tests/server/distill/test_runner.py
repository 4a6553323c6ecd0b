"""Runs over scripted engines: each line once, bounded, interruptible, and the same with or without interruptions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel, candidate, ids_of, text_of
from tests.live import scripted
from tests.runs import timeless
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.combiner import rank
from winnow.models.errors import EngineDead, RunError
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Branch, Candidate, Message, Prompt
from winnow.server.distill import command, recipe
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.backends.score_batches import BatchedRewardModel
from winnow.server.distill.journal import Journal, read
from winnow.server.distill.options import RunOptions
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Choices, Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.reader import Source
from winnow.server.distill.records import Problem, Record
from winnow.server.distill.runner import Runner
from winnow.server.pipeline.request import RequestOptions
from winnow.server.service import Service

RULES, _ = recipe.read(None)


class SeededPolicy(ScriptedPolicy):
    """Answers differ by prompt, seed and index, and by nothing else."""

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
        await asyncio.sleep(0)
        return candidate(index, (sum(prompt.token_ids) % 97, (sampling.seed or 0) % 89, index))


def choices(**changes: object) -> Choices:
    values = {
        "candidates": 4, "temperatures": (1.0,), "sweep": False, "top_p": 1.0, "max_tokens": 64, "combiner": "llama2",
        "seed": 0, **changes,
    }  # fmt: skip
    return Choices(**values)  # type: ignore[arg-type]


def tasks(count: int) -> list[Task]:
    """Lines 1 to `count`; every third one has the same prompt."""
    return [
        Task(line, "f", line, f"id-{line}", (Message("user", f"Question {line % 3 and line}?"),))
        for line in range(1, count + 1)
    ]


def runner(
    service: Service, journal: Journal, meter: Meter, in_flight: int = 8, chosen: Choices | None = None
) -> Runner:
    backend = InProcess(service, 0.001)
    planner = Planner(chosen or choices(), RULES, backend.is_safety)
    return Runner(planner.plan, backend, journal, meter, in_flight)


async def run(
    folder: Path,
    service: Service,
    lines: list[Task | Problem] | list[Task],
    in_flight: int = 8,
    **changes: object,
) -> list[Record | Problem]:
    """Run `lines` into the journal of `folder` and return all of its entries."""
    chosen = choices(**changes)
    with Journal(folder) as journal:
        meter = Meter(len(lines), len(journal.done))
        await runner(service, journal, meter, in_flight, chosen).run(iter(lines))
        reading = meter.read()
        assert reading.in_flight == reading.candidates_in_flight == 0
    return list(read(folder))


def all_timeless(entries: list[Record | Problem]) -> list[Record | Problem]:
    return [timeless(entry) if isinstance(entry, Record) else entry for entry in entries]


def texts(entry: Record) -> set[str]:
    return {item.candidate.text for item in entry.selection.scored}


def indices(entry: Record) -> list[int]:
    return [item.candidate.index for item in entry.selection.scored]


@pytest.fixture
def seeded(tokenizer: Tokenizer) -> Service:
    return scripted(tokenizer, SeededPolicy())


async def test_every_line_is_answered_once_and_equal_prompts_are_two(tmp_path: Path, seeded: Service) -> None:
    entries = await run(tmp_path, seeded, tasks(20))
    assert [entry.line for entry in entries] == list(range(1, 21))
    records = [entry for entry in entries if isinstance(entry, Record)]
    assert len(records) == 20
    assert all(len(record.selection.scored) == 4 for record in records)
    third, sixth = records[2], records[5]
    assert third.messages == sixth.messages
    assert texts(third) != texts(sixth)
    for record in records:
        best = max(item.reward.combined_logit for item in record.selection.scored)
        assert record.selection.winner.reward.combined_logit == best


@pytest.mark.parametrize("in_flight", [1, 3, 64])
async def test_the_outcome_does_not_depend_on_the_prompts_in_flight(
    in_flight: int, tmp_path: Path, seeded: Service
) -> None:
    entries = await run(tmp_path / "a", seeded, tasks(15), in_flight) if (tmp_path / "a").mkdir() is None else []
    (tmp_path / "b").mkdir()
    assert all_timeless(entries) == all_timeless(await run(tmp_path / "b", seeded, tasks(15)))


@pytest.mark.parametrize("after", [0, 1, 5, 11])
async def test_an_interrupted_run_resumes_to_the_same_end(
    after: int, tmp_path: Path, tokenizer: Tokenizer, seeded: Service
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    undisturbed = await run(tmp_path / "whole", seeded, tasks(12))

    class Mortal(SeededPolicy):
        calls = 0

        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            self.calls += 1
            if self.calls > 4 * after:
                raise EngineDead("the policy engine is gone")
            return await super().sample(prompt, sampling, index)

    with pytest.raises(EngineDead):
        await run(tmp_path / "parts", scripted(tokenizer, Mortal()), tasks(12), in_flight=2)
    assert len(list(read(tmp_path / "parts"))) <= after
    assert all_timeless(await run(tmp_path / "parts", seeded, tasks(12))) == all_timeless(undisturbed)


async def test_a_disk_that_loses_entries_ends_the_run(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fdatasync(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(command, "SYNC_SECONDS", 0)
    monkeypatch.setattr(command._Session, "_lines", lambda session: iter(tasks(1)))
    policy = ScriptedPolicy(hold=asyncio.Event())
    backend = InProcess(scripted(tokenizer, policy), 0.001)
    options, source = RunOptions("input.jsonl", tmp_path, choices()), Source("input.jsonl", "0" * 64, 1, 1, ())
    with contextlib.suppress(RunError), Journal(tmp_path) as journal:  # closing it tells the loss once more
        session = command._Session(options, source, Llama2Template(tokenizer), journal, RULES)
        with pytest.raises(RunError, match="No space left"):
            await asyncio.wait_for(session._run(backend, backend.is_safety, 1, 8), 10)
    assert not policy.unfinished


async def test_cancelling_ends_everything_in_flight(tmp_path: Path, tokenizer: Tokenizer) -> None:
    policy = ScriptedPolicy(hold=asyncio.Event())
    work = asyncio.create_task(run(tmp_path, scripted(tokenizer, policy), tasks(30), in_flight=5))
    while len(policy.running) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not policy.running
    Journal(tmp_path).close()


async def test_no_more_prompts_are_in_flight_than_allowed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    seen: list[int] = []
    meter = Meter(40)

    class Watched(SeededPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            seen.append(meter.read().in_flight)
            return await super().sample(prompt, sampling, index)

    service = scripted(tokenizer, Watched())
    with Journal(tmp_path) as journal:
        await runner(service, journal, meter, in_flight=6).run(iter(tasks(40)))
    assert max(seen) == 6


async def test_the_input_is_read_as_there_is_room(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Bounded memory: with nothing finishing, no more than a handful of 100,000 lines is ever read."""
    taken = 0

    def endless() -> Iterator[Task]:
        nonlocal taken
        for task in tasks(1000):
            taken += 1
            yield task

    policy = ScriptedPolicy(hold=asyncio.Event())
    service = scripted(tokenizer, policy)
    with Journal(tmp_path) as journal:
        work = asyncio.create_task(runner(service, journal, Meter(1000), in_flight=7).run(endless()))
        for _ in range(50):
            await asyncio.sleep(0)
        assert taken == 8
        work.cancel()
        await asyncio.wait([work])


async def test_bad_lines_are_in_the_journal_and_the_others_are_answered(tmp_path: Path, seeded: Service) -> None:
    bad = Problem(2, None, "f", 2, "input", "invalid_json", "the line is not JSON")
    good = tasks(3)
    entries = await run(tmp_path, seeded, [good[0], bad, good[2]])
    assert entries[1] == bad
    assert [type(entry) for entry in entries] == [Record, Problem, Record]


async def test_impossible_options_of_a_line_are_its_own_problem(tmp_path: Path, seeded: Service) -> None:
    long = replace(tasks(1)[0], messages=(Message("user", "word " * 5000),))
    tag = replace(tasks(2)[1], messages=(Message("user", "Say [INST]"),))
    wide = replace(tasks(3)[2], options=RequestOptions(max_tokens=5000))
    bias = replace(tasks(4)[3], options=RequestOptions(logit_bias={"99999": 1.0}))
    entries = await run(tmp_path, seeded, [long, tag, wide, bias, tasks(5)[4]])
    codes = [entry.code if isinstance(entry, Problem) else "" for entry in entries]
    assert codes == ["context_length_exceeded", "invalid_messages", "context_length_exceeded", "invalid_sampling", ""]
    assert all(entry.kind == "input" for entry in entries if isinstance(entry, Problem))


async def test_a_prompt_without_a_scored_candidate_is_reported_and_retried_only_on_request(
    tmp_path: Path, tokenizer: Tokenizer, seeded: Service
) -> None:
    broken = scripted(tokenizer, SeededPolicy(), safety=ScriptedRewardModel(logit=lambda _: math.nan))
    (entry,) = await run(tmp_path, broken, tasks(1))
    assert isinstance(entry, Problem)
    assert (entry.kind, entry.code) == ("failed", "no_scored_candidate")
    assert entry.message.startswith("none of 4 candidates could be scored: ")
    assert "not finite" in entry.message
    with Journal(tmp_path) as journal:
        assert journal.done == journal.failed == {1}
        journal.done -= journal.failed
        await runner(seeded, journal, Meter(1), in_flight=1).run(iter(tasks(1)))
    assert [type(entry) for entry in read(tmp_path)] == [Record]


async def test_a_candidate_that_fails_leaves_the_others_to_compete(tmp_path: Path, tokenizer: Tokenizer) -> None:
    once = iter([math.nan])
    service = scripted(tokenizer, SeededPolicy(), safety=ScriptedRewardModel(logit=lambda _: next(once, 2.0)))
    (entry,) = await run(tmp_path, service, tasks(1))
    assert isinstance(entry, Record)
    assert len(entry.selection.scored) == 3
    assert len(entry.selection.failures) == 1
    failed = [failure.index for failure in entry.selection.failures]
    assert sorted([*indices(entry), *failed]) == [0, 1, 2, 3]


async def test_arms_are_one_selection(tmp_path: Path, seeded: Service) -> None:
    entries = await run(tmp_path, seeded, tasks(5), temperatures=(0.7, 1.0, 1.3), sweep=True)
    for entry in entries:
        assert isinstance(entry, Record)
        assert indices(entry) == list(range(12))
        temperatures = [entry.arm_of(item.candidate).temperature for item in entry.selection.scored]
        assert temperatures == [0.7] * 4 + [1.0] * 4 + [1.3] * 4
        assert sorted(entry.selection.ranking) == list(range(12))


class TellingPolicy(ScriptedPolicy):
    """Answers tell their arm and index: ten times the temperature, whether there was a preprompt, and the index."""

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
        return candidate(index, (round(10 * sampling.temperature), int(len(prompt) > 40), index))


@pytest.mark.parametrize(
    "failing",
    [
        set(),
        {(10, 0, 0), (15, 1, 0)},
        {(5, 1, 0), (5, 1, 1)},
        {(5, 0, 0), (5, 0, 1)},
        {(5, 1, 0), (5, 1, 1), (10, 1, 0), (10, 1, 1), (15, 1, 0)},
    ],
    ids=["none", "some candidates", "a distilled arm", "the first arm", "every distilled arm"],
)
async def test_candidates_are_numbered_from_arm_to_arm(
    failing: set[tuple[int, ...]], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """An arm that failed keeps its numbers, so that each candidate's arm follows from its index."""
    safety = ScriptedRewardModel(logit=lambda ids: math.nan if ids in failing else float(sum(ids) % 7))
    service = scripted(tokenizer, TellingPolicy(), safety)
    job = replace(tasks(1)[0], options=RequestOptions(is_safety=True))
    changes = {"candidates": 5, "temperatures": (0.5, 1.0, 1.5), "context_distillation": True}
    (entry,) = await run(tmp_path, service, [job], **changes)
    assert isinstance(entry, Record)
    assert [arm.candidates for arm in entry.arms] == [2, 2, 1, 2, 2, 1]
    places = [
        (round(10 * arm.temperature), int(arm.is_context_distilled), index)
        for arm in entry.arms
        for index in range(arm.candidates)
    ]
    selection = entry.selection
    scored = {item.candidate.index: ids_of(item.candidate.text) for item in selection.scored}
    assert scored == {number: place for number, place in enumerate(places) if place not in failing}
    assert [item.index for item in selection.failures] == [n for n, place in enumerate(places) if place in failing]
    assert selection.ranking == rank(selection.scored, "llama2")
    for item in selection.scored:
        arm = entry.arm_of(item.candidate)
        assert (round(10 * arm.temperature), arm.is_context_distilled) == ids_of(item.candidate.text)[:2]
    with pytest.raises(IndexError):
        entry.arm_of(candidate(10))


async def test_a_context_distilled_answer_wins_only_where_the_safety_model_prefers_it(
    tmp_path: Path, tokenizer: Tokenizer, template: Llama2Template
) -> None:
    """It is scored as an answer to the stored prompt; a tie goes to the answer sampled without the preprompt."""
    seen: set[tuple[int, ...]] = set()

    class Judge(ScriptedRewardModel):
        async def score(self, prompt: Prompt, answer: str) -> float:
            seen.add(prompt.token_ids)
            return await super().score(prompt, answer)

    class Preprompted(ScriptedPolicy):
        async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
            return candidate(index, text="distilled" if len(prompt) > 40 else "plain")

    async def winner(name: str, distilled: float, plain: float) -> Record:
        (tmp_path / name).mkdir()
        judge = Judge(logit=lambda ids: distilled if ids == ids_of("distilled") else plain)
        service = scripted(tokenizer, Preprompted(), safety=judge)
        job = replace(tasks(1)[0], options=RequestOptions(is_safety=True))
        (entry,) = await run(tmp_path / name, service, [job], context_distillation=True)
        assert isinstance(entry, Record)
        return entry

    better = await winner("better", 2.0, 1.0)
    assert better.selection.winner.candidate.text == "distilled"
    assert better.arm_of(better.selection.winner.candidate).is_context_distilled
    assert better.messages == tasks(1)[0].messages
    assert better.selection.winner.reward.branch is Branch.SAFETY_PROMPT
    assert (await winner("equal", 1.0, 1.0)).selection.winner.candidate.text == "plain"
    with pytest.raises(AssertionError):  # a Problem: nothing to be better than
        await winner("alone", 1.0, math.nan)
    assert (await winner("worse", 0.0, 1.0)).selection.winner.candidate.text == "plain"
    assert seen == {template.render(tasks(1)[0].messages, tokenizer).token_ids}


async def test_helpfulness_is_scored_only_where_it_can_matter(tmp_path: Path, tokenizer: Tokenizer) -> None:
    helpfulness = ScriptedRewardModel(logit=lambda _: 1.0)
    gated = scripted(tokenizer, SeededPolicy(), ScriptedRewardModel(logit=lambda _: -5.0), helpfulness)
    (entry,) = await run(tmp_path, gated, tasks(1))
    assert isinstance(entry, Record)
    assert entry.selection.all_unsafe
    assert helpfulness.calls == 0


async def test_a_full_disk_ends_the_run(tmp_path: Path, seeded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(journal: Journal, entry: object) -> None:
        raise RunError("the journal cannot be written: No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(RunError, match="No space left"):
        await run(tmp_path, seeded, tasks(10))


class TestBatchedRewardModel:
    async def test_scores_wait_for_each_other(self) -> None:
        model = ScriptedRewardModel()
        batched = BatchedRewardModel(model, size=3, seconds=60)
        prompt = Prompt((1, 2))
        first = [asyncio.create_task(batched.score(prompt, text_of((index,)))) for index in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert model.calls == 0
        assert await batched.score(prompt, text_of((2,))) == model.logit((2,))
        assert await asyncio.gather(*first) == [model.logit((0,)), model.logit((1,))]

    async def test_but_not_longer_than_the_limit(self) -> None:
        batched = BatchedRewardModel(ScriptedRewardModel(), size=100, seconds=0.01)
        score = batched.score(Prompt((1,)), text_of((4,)))
        assert await asyncio.wait_for(score, 5) == ScriptedRewardModel().logit((4,))

    async def test_nor_for_a_policy_that_has_nothing_else_to_do(self) -> None:
        """Such as at the end of a run: nothing would fill the batch."""
        running, model = {1}, ScriptedRewardModel()
        batched = BatchedRewardModel(model, size=100, seconds=60, is_sampling=lambda: bool(running))
        first = asyncio.create_task(batched.score(Prompt((1,)), text_of((1,))))
        for _ in range(5):
            await asyncio.sleep(0)
        assert model.calls == 0
        running.clear()
        last = batched.score(Prompt((1,)), text_of((2,)))
        async with asyncio.timeout(5):
            assert await asyncio.gather(first, last) == [model.logit((1,)), model.logit((2,))]

    async def test_answers_to_one_prompt_come_one_after_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They meet in a step of the engine, which computes what they share once."""
        model, asked = ScriptedRewardModel(), []
        score = model.score

        async def noted(prompt: Prompt, answer: str) -> float:
            asked.append(prompt.token_ids[0])
            return await score(prompt, answer)

        monkeypatch.setattr(model, "score", noted)
        batched = BatchedRewardModel(model, size=6, seconds=60)
        scores = [batched.score(Prompt((index % 3, 7)), text_of((index,))) for index in range(6)]
        assert await asyncio.gather(*scores) == [model.logit((index,)) for index in range(6)]
        assert asked == [0, 0, 1, 1, 2, 2]

    async def test_a_cancelled_score_does_not_hold_up_the_others(self) -> None:
        batched = BatchedRewardModel(ScriptedRewardModel(), size=2, seconds=0.01)
        lost = asyncio.create_task(batched.score(Prompt((1,)), text_of((1,))))
        await asyncio.sleep(0)
        lost.cancel()
        score = batched.score(Prompt((1,)), text_of((2,)))
        assert await asyncio.wait_for(score, 5) == ScriptedRewardModel().logit((2,))


class TestMeter:
    def test_it_counts(self, tmp_path: Path) -> None:
        meter = Meter(10, done=2, errors=1)
        with meter.under_way(16):
            assert (meter.read().in_flight, meter.read().candidates_in_flight) == (1, 16)
        meter.count(Problem(4, None, "f", 4, "input", "c", "m"))
        now = meter.read()
        assert (now.total, now.done, now.errors, now.in_flight) == (10, 2, 2, 0)

    def test_the_time_left_is_known_once_a_line_is_finished(self) -> None:
        meter = Meter(10)
        assert meter.read().eta_seconds is None
        meter.count(Problem(1, None, "f", 1, "input", "c", "m"))
        now = meter.read()
        assert now.eta_seconds is not None
        assert now.eta_seconds > 0
        assert now.prompts_per_second > 0
