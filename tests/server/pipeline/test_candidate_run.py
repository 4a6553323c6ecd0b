"""Selections that end early: the aborted candidates, the reasons, and that nothing is left running.

Faults and the order of events are forced on scripted engines.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from tests.fakes import ScriptedRewardModel, text_of
from winnow.models.errors import CandidateFailed, CandidateStopped, NoScoredCandidate
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.types import Candidate, Message, Prompt, Selection
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.pipeline.early_stopping import EarlyRejection, EarlyStopping
from winnow.server.service import Service

PROMPT = Prompt((1, 5, 6))
SAMPLING = Sampling(max_tokens=64)


@dataclass
class SteppedPolicy:
    """Candidate k is worth k; it finishes, and passes checkpoints, when the test says so."""

    ignores_abort: bool = False
    """Like an engine that has not received the request yet."""
    empty: frozenset[int] = frozenset()
    """The candidates that end without text."""
    ends: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    handles: dict[int, CandidateHandle] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    context: int = 2048
    vocabulary: int = 2048

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        end = self.ends[index] = asyncio.get_running_loop().create_future()
        self.running.add(index)
        if handle:
            self.handles[index] = handle

            async def abort() -> None:
                if not end.done():
                    end.set_exception(CandidateStopped(7))

            if not self.ignores_abort:
                handle.abort = abort
        try:
            tokens = await end
            return Candidate(index, "" if index in self.empty else text_of((index,)), "stop", tokens)
        finally:
            self.running.discard(index)

    def finish(self, *indices: int) -> None:
        for index in indices:
            self.ends[index].set_result(10 + index)

    def pass_checkpoint(self, checkpoint: int, indices: Iterable[int]) -> None:
        for index in indices:
            self.report(checkpoint, index, text_of((index,)))

    def report(self, checkpoint: int, index: int, text: str) -> None:
        at_checkpoint = self.handles[index].at_checkpoint
        assert at_checkpoint
        at_checkpoint(checkpoint, text)


@dataclass
class Scene:
    """A selection under way on scripted parts."""

    policy: SteppedPolicy
    helpfulness: ScriptedRewardModel
    selecting: asyncio.Task[Selection]

    @classmethod
    async def start(cls, k: int, early: EarlyStopping, policy: SteppedPolicy | None = None) -> Scene:
        policy = policy or SteppedPolicy()
        helpfulness = ScriptedRewardModel(lambda ids: float(ids[0]) - 4 if ids else 9.0)
        parts = BestOfN(policy, ScriptedRewardModel(lambda ids: 3.0), helpfulness)
        scene = cls(
            policy, helpfulness, asyncio.create_task(parts.select(PROMPT, SAMPLING, k, "llama2", early_stopping=early))
        )
        await scene.settle()
        assert len(policy.running) == k
        return scene

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def selection(self) -> Selection:
        selection = await asyncio.wait_for(self.selecting, 10)
        assert not self.policy.running, "a candidate was left running"
        others = asyncio.all_tasks() - {asyncio.current_task()}
        names = ("CandidateRun", "BestOfN")
        assert not [task for task in others if any(name in repr(task) for name in names)], "a task was left behind"
        ended = [*selection.scored, *selection.failures, *selection.aborted]
        assert selection.candidates == len(ended)
        return selection


async def test_accept_reward_ends_with_the_first_candidate_that_reaches_it() -> None:
    scene = await Scene.start(8, EarlyStopping(accept_reward=0.7))
    scene.policy.finish(3)
    await scene.settle()
    assert not scene.selecting.done(), "R_c of candidate 3 is 0.27"
    scene.policy.finish(6)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 6
    assert selection.truncated_by == "accept_reward"
    assert [item.candidate.index for item in selection.scored] == [3, 6]
    assert {item.index: (item.reason, item.tokens) for item in selection.aborted} == dict.fromkeys(
        (0, 1, 2, 4, 5, 7), ("accept_reward", 7)
    )
    assert selection.sampled_tokens == 13 + 16 + 6 * 7
    assert not selection.is_approximate


async def test_accept_reward_changes_nothing_if_no_candidate_reaches_it() -> None:
    scene = await Scene.start(4, EarlyStopping(accept_reward=1.0))
    scene.policy.finish(0, 1, 2, 3)
    selection = await scene.selection()
    assert (selection.truncated_by, selection.aborted) == (None, ())
    assert selection.winner.candidate.index == 3


async def test_no_truncation_is_reported_if_nothing_was_aborted() -> None:
    scene = await Scene.start(2, EarlyStopping(accept_reward=0.0))
    scene.policy.finish(0, 1)
    selection = await scene.selection()
    assert len(selection.scored) + len(selection.aborted) == 2
    assert (selection.truncated_by is None) == (not selection.aborted)


async def test_accept_reward_is_not_met_by_an_empty_answer() -> None:
    scene = await Scene.start(3, EarlyStopping(accept_reward=0.2), SteppedPolicy(empty=frozenset({0})))
    scene.policy.finish(0)
    await scene.settle()
    assert not scene.selecting.done()
    scene.policy.finish(1)
    await scene.settle()
    assert not scene.selecting.done(), "R_c of candidate 1 is 0.05"
    scene.policy.finish(2)
    selection = await scene.selection()
    assert [item.candidate.index for item in selection.ranked] == [2, 1, 0]


async def test_a_deadline_waits_for_an_answer_that_is_not_empty() -> None:
    scene = await Scene.start(3, EarlyStopping(deadline=time.monotonic()), SteppedPolicy(empty=frozenset({0})))
    scene.policy.finish(0)
    await scene.settle()
    assert not scene.selecting.done()
    scene.policy.finish(1)
    selection = await scene.selection()
    assert (selection.winner.candidate.index, selection.truncated_by) == (1, "deadline")


async def test_if_all_answers_are_empty_the_best_of_them_wins() -> None:
    early = EarlyStopping(deadline=time.monotonic(), accept_reward=0.0)
    scene = await Scene.start(3, early, SteppedPolicy(empty=frozenset(range(3))))
    scene.policy.finish(2, 1, 0)
    selection = await scene.selection()
    assert [item.candidate.index for item in selection.ranked] == [0, 1, 2]
    assert selection.truncated_by is None


async def test_a_part_without_text_is_neither_scored_nor_rejected() -> None:
    """At an early checkpoint an answer may have a line end, or the first byte of a character, and no text yet."""
    scene = await Scene.start(4, EarlyStopping(early_rejection=EarlyRejection((8,), 0.5)))
    scene.policy.report(0, 0, "")
    scene.policy.report(0, 1, " \n")
    scene.policy.pass_checkpoint(0, (2, 3))
    await scene.settle()
    assert scene.helpfulness.calls == 2
    scene.policy.finish(0, 1, 3)
    selection = await scene.selection()
    assert [item.index for item in selection.aborted] == [2]
    assert [item.candidate.index for item in selection.scored] == [0, 1, 3]


async def test_safe_first_does_not_accept_an_unsafe_candidate() -> None:
    """R_c of an unsafe candidate is R_s; `safe_first` lets it lead only while there is no safe one."""
    policy = SteppedPolicy()
    parts = BestOfN(
        policy, ScriptedRewardModel(lambda ids: -2.0 if ids == (0,) else 2.0), ScriptedRewardModel(lambda ids: 1.0)
    )
    selecting = asyncio.create_task(
        parts.select(PROMPT, SAMPLING, 2, "safe_first", early_stopping=EarlyStopping(accept_reward=0.1))
    )
    for _ in range(20):
        await asyncio.sleep(0)
    policy.finish(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not selecting.done()
    policy.finish(1)
    assert (await selecting).winner.candidate.index == 1


async def test_a_deadline_returns_the_best_candidate_scored_by_then() -> None:
    scene = await Scene.start(4, EarlyStopping(deadline=time.monotonic() + 0.2))
    scene.policy.finish(1, 2)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 2
    assert selection.truncated_by == "deadline"
    assert [(item.index, item.reason, item.tokens) for item in selection.aborted] == [
        (0, "deadline", 7),
        (3, "deadline", 7),
    ]


async def test_after_the_deadline_the_first_candidate_to_finish_wins() -> None:
    scene = await Scene.start(4, EarlyStopping(deadline=time.monotonic() - 1))
    await scene.settle()
    assert not scene.selecting.done(), "never an unscored winner"
    scene.policy.finish(2)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 2
    assert len(selection.scored) == 1
    assert selection.truncated_by == "deadline"


async def test_after_the_deadline_a_candidate_without_a_score_does_not_win() -> None:
    scene = await Scene.start(3, EarlyStopping(deadline=time.monotonic() - 1))
    scene.helpfulness.logit = lambda ids: math.nan if ids == (2,) else 1.0
    scene.policy.finish(2)
    await scene.settle()
    assert not scene.selecting.done()
    scene.policy.finish(0)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 0
    assert [failure.index for failure in selection.failures] == [2]


async def test_a_deadline_does_not_wait_for_a_score_under_way() -> None:
    scene = await Scene.start(3, EarlyStopping(deadline=time.monotonic() + 0.2))
    scene.policy.finish(0)
    await scene.settle()
    scene.helpfulness.hold = asyncio.Event()
    scene.policy.finish(1)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 0
    assert [(item.index, item.tokens) for item in selection.aborted] == [(1, 11), (2, 7)]


async def test_a_candidate_that_its_engine_has_not_received_is_cancelled() -> None:
    scene = await Scene.start(4, EarlyStopping(accept_reward=0.0), SteppedPolicy(ignores_abort=True))
    scene.policy.finish(0)
    selection = await scene.selection()
    assert [item.tokens for item in selection.aborted] == [0, 0, 0], "the engine reported no token count"


async def test_early_rejection_keeps_the_better_half_at_each_checkpoint() -> None:
    scene = await Scene.start(8, EarlyStopping(early_rejection=EarlyRejection((4, 8), 0.5)))
    scene.policy.pass_checkpoint(0, range(8))
    await scene.settle()
    assert scene.policy.running == {4, 5, 6, 7}
    scene.policy.pass_checkpoint(1, range(4, 8))
    await scene.settle()
    assert scene.policy.running == {6, 7}
    scene.policy.finish(6, 7)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 7
    assert selection.is_approximate
    assert selection.truncated_by is None
    assert {item.reason for item in selection.aborted} == {"early_rejection"}
    assert [item.index for item in selection.aborted] == [0, 1, 2, 3, 4, 5]


async def test_a_candidate_that_finishes_while_a_checkpoint_is_decided_competes() -> None:
    scene = await Scene.start(4, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.pass_checkpoint(0, range(3))
    await scene.settle()
    scene.policy.finish(0)
    await scene.settle()
    scene.policy.pass_checkpoint(0, [3])
    await scene.settle()
    assert scene.policy.running == {2, 3}
    scene.policy.finish(2, 3)
    selection = await scene.selection()
    assert [item.candidate.index for item in selection.scored] == [0, 2, 3]


async def test_a_candidate_that_finishes_while_it_is_aborted_competes() -> None:
    scene = await Scene.start(
        2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)), SteppedPolicy(ignores_abort=True)
    )
    scene.policy.pass_checkpoint(0, range(2))
    await scene.settle()
    scene.policy.finish(0, 1)
    selection = await scene.selection()
    assert [item.candidate.index for item in selection.scored] == [0, 1]
    assert not selection.is_approximate


@pytest.mark.parametrize("turns", range(16))
async def test_a_candidate_is_not_lost_whenever_it_finishes_around_its_abort(turns: int) -> None:
    """Candidate 1 begins badly and ends as the best, some turns of the event loop after its checkpoint."""

    class Policy(SteppedPolicy):
        async def sample(
            self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
        ) -> Candidate:
            assert handle
            assert handle.at_checkpoint
            await asyncio.sleep(0)
            handle.at_checkpoint(0, text_of((index, 0)))
            for _ in range(turns if index == 1 else 40 + 40 * index):
                await asyncio.sleep(0)
            return Candidate(index, text_of((index, 1)), "stop", 5)

    worth = ScriptedRewardModel(logit=lambda ids: {(1, 0): -2.0, (1, 1): 4.0}.get(ids, 1.0))
    early = EarlyStopping(early_rejection=EarlyRejection((4,), 0.5))
    selection = await BestOfN(Policy(), worth, worth).select(PROMPT, SAMPLING, 3, "llama2", early_stopping=early)
    scored = {item.candidate.index for item in selection.scored}
    aborted = {item.index for item in selection.aborted}
    assert scored | aborted == {0, 1, 2}
    assert not scored & aborted
    assert selection.candidates == 3


async def test_a_partial_score_that_decides_nothing_delays_nothing() -> None:
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.finish(0, 1)
    await scene.settle()
    assert scene.selecting.done()
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.finish(1)
    await scene.settle()
    hold = scene.helpfulness.hold = asyncio.Event()
    scene.policy.report(0, 0, text_of((5, 5)))
    await scene.settle()
    scene.helpfulness.hold = None
    scene.policy.finish(0)
    assert len((await scene.selection()).scored) == 2
    hold.set()


async def test_there_is_an_error_if_every_remaining_candidate_fails() -> None:
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.pass_checkpoint(0, range(2))
    await scene.settle()
    scene.policy.ends[1].set_exception(CandidateFailed("cut off"))
    with pytest.raises(NoScoredCandidate):
        await scene.selecting


@pytest.mark.parametrize(
    "early", [EarlyStopping(accept_reward=0.5), EarlyStopping(early_rejection=EarlyRejection((4,)))]
)
async def test_cancelling_leaves_nothing_running(early: EarlyStopping) -> None:
    scene = await Scene.start(8, early)
    scene.helpfulness.hold = asyncio.Event()
    scene.policy.finish(0, 1)
    await scene.settle()
    scene.selecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scene.selecting
    assert not scene.policy.running


def ask(service: Service, question: str = "Name three fruits.") -> Prompt:
    return service.template.render([Message("user", question)], service.tokenizer)


def forced(service: Service, tokens: int, seed: int = 1) -> Sampling:
    return Sampling(max_tokens=tokens, seed=seed, logit_bias={service.tokenizer.eos_id: -100.0})


def uneven(service: Service) -> Sampling:
    """EOS made rare: lengths differ by hundreds of tokens, so that the first to finish is far ahead of most."""
    return Sampling(max_tokens=1500, seed=3, logit_bias={service.tokenizer.eos_id: -6.0})


async def unfinished(service: Service) -> int:
    return sum(engine.unfinished for engine in service.engines.values())


@pytest.mark.engine
async def test_accept_reward_aborts_the_others_on_real_engines(service: Service) -> None:
    early = EarlyStopping(accept_reward=0.0)
    selection = await service.pipeline.select(ask(service), uneven(service), 16, "llama2", early_stopping=early)
    assert await unfinished(service) == 0
    assert selection.truncated_by == "accept_reward"
    assert selection.aborted
    assert all(item.tokens > 0 for item in selection.aborted), "the engine reports their token counts"


@pytest.mark.engine
async def test_a_deadline_aborts_the_others_on_real_engines(service: Service) -> None:
    """Nothing is scored by then, so the answer is the first to finish, far ahead of most."""
    early = EarlyStopping(deadline=time.monotonic())
    selection = await service.pipeline.select(ask(service), uneven(service), 16, "llama2", early_stopping=early)
    assert await unfinished(service) == 0
    assert selection.truncated_by == "deadline"
    assert len(selection.scored) < 16


@pytest.mark.engine
async def test_early_rejection_saves_tokens_on_real_engines(service: Service) -> None:
    early = EarlyStopping(early_rejection=EarlyRejection((8, 32), 0.5))
    selection = await service.pipeline.select(ask(service), forced(service, 256), 16, "llama2", early_stopping=early)
    assert await unfinished(service) == 0
    assert selection.is_approximate
    assert len(selection.scored) == 4
    assert all(8 <= item.tokens < 256 for item in selection.aborted)
    assert selection.sampled_tokens < 16 * 256


@pytest.mark.engine
async def test_early_stopping_that_aborts_nothing_changes_no_answer(service: Service) -> None:
    sampling = Sampling(max_tokens=32, seed=11)
    plain = await service.pipeline.select(ask(service), sampling, 8, "llama2")
    early = EarlyStopping(time.monotonic() + 60, 1.0, EarlyRejection((64,)))
    limited = await service.pipeline.select(ask(service), sampling, 8, "llama2", early_stopping=early)
    assert [item.candidate.text for item in plain.scored] == [item.candidate.text for item in limited.scored]
    assert [item.reward for item in plain.scored] == [item.reward for item in limited.scored]
