"""A selection that may end early: who is given up, why, and that nobody is left behind. Faults and order are forced on scripted parts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from tests.fakes import ScriptedRewardModel
from winnow.models.errors import CandidateFailed, CandidateStopped, NoScoredCandidate
from winnow.models.sampling import Handle, Sampling
from winnow.models.types import Candidate, Message, Prompt, Selection
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.pipeline.early_stopping import EarlyRejection, EarlyStopping
from winnow.server.service import Service

PROMPT = Prompt((1, 5, 6))
SAMPLING = Sampling(max_tokens=64)


@dataclass
class SteppedPolicy:
    """Candidate k is worth k, and ends when the test says so; on the way it passes the checkpoints that the test says."""

    deaf: bool = False
    """Does not hear that it is to stop, as an engine that has not got the request yet."""
    ends: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    handles: dict[int, Handle] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    context: int = 2048
    vocabulary: int = 2048

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: Handle | None = None) -> Candidate:
        end = self.ends[index] = asyncio.get_running_loop().create_future()
        self.running.add(index)
        if handle:
            self.handles[index] = handle

            async def abort() -> None:
                if not end.done():
                    end.set_exception(CandidateStopped(7))

            if not self.deaf:
                handle.abort = abort
        try:
            tokens = await end
            return Candidate(index, (index,), f"answer {index}", "stop", tokens)
        finally:
            self.running.discard(index)

    def finish(self, *indices: int) -> None:
        for index in indices:
            self.ends[index].set_result(10 + index)

    def pass_checkpoint(self, checkpoint: int, indices: Iterable[int]) -> None:
        for index in indices:
            tell = self.handles[index].at_checkpoint
            assert tell
            tell(checkpoint, (index,))


@dataclass
class Scene:
    """A selection under way on scripted parts."""

    policy: SteppedPolicy
    helpfulness: ScriptedRewardModel
    selecting: asyncio.Task[Selection]

    @classmethod
    async def start(cls, k: int, dial: EarlyStopping, policy: SteppedPolicy | None = None) -> Scene:
        policy = policy or SteppedPolicy()
        helpfulness = ScriptedRewardModel(lambda ids: float(ids[0]) - 4)
        parts = BestOfN(policy, ScriptedRewardModel(lambda ids: 3.0), helpfulness)
        scene = cls(policy, helpfulness, asyncio.create_task(parts.select(PROMPT, SAMPLING, k, "llama2", dial=dial)))
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
        assert selection.requested == len(ended)
        return selection


async def test_accept_reward_returns_the_first_that_reaches_it() -> None:
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


async def test_an_accepted_reward_that_nobody_reaches_changes_nothing() -> None:
    scene = await Scene.start(4, EarlyStopping(accept_reward=1.0))
    scene.policy.finish(0, 1, 2, 3)
    selection = await scene.selection()
    assert (selection.truncated_by, selection.aborted) == (None, ())
    assert selection.winner.candidate.index == 3


async def test_the_last_candidate_that_is_accepted_truncates_nothing() -> None:
    scene = await Scene.start(2, EarlyStopping(accept_reward=0.0))
    scene.policy.finish(0, 1)
    selection = await scene.selection()
    assert len(selection.scored) + len(selection.aborted) == 2
    assert (selection.truncated_by is None) == (not selection.aborted)


async def test_safe_first_does_not_accept_an_unsafe_candidate_for_its_low_standards() -> None:
    """By the paper's formula R_c of a gated candidate is R_s; `safe_first` leads with it only while there is nobody else."""
    policy = SteppedPolicy()
    parts = BestOfN(
        policy, ScriptedRewardModel(lambda ids: -2.0 if ids == (0,) else 2.0), ScriptedRewardModel(lambda ids: 1.0)
    )
    selecting = asyncio.create_task(
        parts.select(PROMPT, SAMPLING, 2, "safe_first", dial=EarlyStopping(accept_reward=0.1))
    )
    for _ in range(20):
        await asyncio.sleep(0)
    policy.finish(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not selecting.done()
    policy.finish(1)
    assert (await selecting).winner.candidate.index == 1


async def test_a_deadline_returns_the_best_of_what_has_been_scored() -> None:
    scene = await Scene.start(4, EarlyStopping(deadline=time.monotonic() + 0.2))
    scene.policy.finish(1, 2)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 2
    assert selection.truncated_by == "deadline"
    assert [(item.index, item.reason, item.tokens) for item in selection.aborted] == [
        (0, "deadline", 7),
        (3, "deadline", 7),
    ]


async def test_past_the_deadline_the_first_to_finish_wins() -> None:
    scene = await Scene.start(4, EarlyStopping(deadline=time.monotonic() - 1))
    await scene.settle()
    assert not scene.selecting.done(), "never an unscored winner"
    scene.policy.finish(2)
    selection = await scene.selection()
    assert selection.winner.candidate.index == 2
    assert len(selection.scored) == 1
    assert selection.truncated_by == "deadline"


async def test_past_the_deadline_a_candidate_that_cannot_be_scored_is_not_the_first() -> None:
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


async def test_a_candidate_that_its_engine_has_not_got_yet_is_stopped_as_well() -> None:
    scene = await Scene.start(4, EarlyStopping(accept_reward=0.0), SteppedPolicy(deaf=True))
    scene.policy.finish(0)
    selection = await scene.selection()
    assert [item.tokens for item in selection.aborted] == [0, 0, 0], "it could not say how far it had come"


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


async def test_who_finishes_while_a_checkpoint_is_decided_competes() -> None:
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


async def test_who_finishes_while_it_is_being_stopped_competes() -> None:
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)), SteppedPolicy(deaf=True))
    scene.policy.pass_checkpoint(0, range(2))
    await scene.settle()
    scene.policy.finish(0, 1)
    selection = await scene.selection()
    assert [item.candidate.index for item in selection.scored] == [0, 1]
    assert not selection.is_approximate


async def test_a_look_that_nobody_needs_holds_up_nothing() -> None:
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.finish(0, 1)
    await scene.settle()
    assert scene.selecting.done()
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.finish(1)
    await scene.settle()
    hold = scene.helpfulness.hold = asyncio.Event()
    tell = scene.policy.handles[0].at_checkpoint
    assert tell
    tell(0, (5, 5))
    await scene.settle()
    scene.helpfulness.hold = None
    scene.policy.finish(0)
    assert len((await scene.selection()).scored) == 2
    hold.set()


async def test_survivors_that_all_fail_are_an_error_and_no_unscored_winner() -> None:
    scene = await Scene.start(2, EarlyStopping(early_rejection=EarlyRejection((4,), 0.5)))
    scene.policy.pass_checkpoint(0, range(2))
    await scene.settle()
    scene.policy.ends[1].set_exception(CandidateFailed("cut off"))
    with pytest.raises(NoScoredCandidate):
        await scene.selecting


@pytest.mark.parametrize(
    "dial", [EarlyStopping(accept_reward=0.5), EarlyStopping(early_rejection=EarlyRejection((4,)))]
)
async def test_cancelling_leaves_nothing_behind_whatever_the_dial(dial: EarlyStopping) -> None:
    scene = await Scene.start(8, dial)
    scene.helpfulness.hold = asyncio.Event()
    scene.policy.finish(0, 1)
    await scene.settle()
    scene.selecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scene.selecting
    assert not scene.policy.running


def ask(service: Service, question: str = "Name three fruits.") -> Prompt:
    return service.template.render([Message("user", question)])


def forced(service: Service, tokens: int, seed: int = 1) -> Sampling:
    return Sampling(max_tokens=tokens, seed=seed, logit_bias={service.template.eos_id: -100.0})


async def unfinished(service: Service) -> int:
    return sum(engine.unfinished for engine in service.engines.values())


@pytest.mark.engine
async def test_on_real_engines_accepting_frees_the_rest_at_once(service: Service) -> None:
    sampling = Sampling(max_tokens=400, seed=3)
    dial = EarlyStopping(accept_reward=0.0)
    selection = await service.pipeline.select(ask(service), sampling, 16, "llama2", dial=dial)
    assert await unfinished(service) == 0
    assert selection.truncated_by == "accept_reward"
    assert selection.aborted
    assert all(item.tokens > 0 for item in selection.aborted), "the engine says how far they had come"


@pytest.mark.engine
async def test_on_real_engines_a_deadline_ends_what_runs(service: Service) -> None:
    """Nothing can have been scored by then, so the answer is the first to finish."""
    dial = EarlyStopping(deadline=time.monotonic())
    selection = await service.pipeline.select(ask(service), forced(service, 200), 8, "llama2", dial=dial)
    assert await unfinished(service) == 0
    assert selection.truncated_by == "deadline"
    assert len(selection.scored) < 8


@pytest.mark.engine
async def test_on_real_engines_early_rejection_saves_tokens_and_leaves_nothing(service: Service) -> None:
    dial = EarlyStopping(early_rejection=EarlyRejection((8, 32), 0.5))
    selection = await service.pipeline.select(ask(service), forced(service, 256), 16, "llama2", dial=dial)
    assert await unfinished(service) == 0
    assert selection.is_approximate
    assert len(selection.scored) == 4
    assert all(8 <= item.tokens < 256 for item in selection.aborted)
    assert selection.sampled_tokens < 16 * 256


@pytest.mark.engine
async def test_on_real_engines_a_dial_that_stops_nobody_changes_no_answer(service: Service) -> None:
    sampling = Sampling(max_tokens=32, seed=11)
    plain = await service.pipeline.select(ask(service), sampling, 8, "llama2")
    early = EarlyStopping(time.monotonic() + 60, 1.0, EarlyRejection((64,)))
    dialled = await service.pipeline.select(ask(service), sampling, 8, "llama2", dial=early)
    assert [item.candidate.text for item in plain.scored] == [item.candidate.text for item in dialled.scored]
    assert [item.reward for item in plain.scored] == [item.reward for item in dialled.scored]
