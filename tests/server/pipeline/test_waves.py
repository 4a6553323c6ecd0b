"""Waves: on scripted engines, whose candidates are sampled and scored in any order, and on the real ones."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import text_of
from winnow.models.errors import CandidateFailed, CandidateStopped, EngineDead, NoScoredCandidate
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.types import Candidate, CombinerName, Message, Progress, Prompt, Selection, logit
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.pipeline.early_stopping import NEVER, EarlyStopping
from winnow.server.pipeline.room import UNBOUNDED, Room
from winnow.server.pipeline.waves import Waves
from winnow.server.service import Service

PROMPT = Prompt((1, 5, 6))
SAMPLING = Sampling(max_tokens=64)
TOKENS = 10
Scripted = float | Literal["failed", "unscored", "empty", "gated"]
"""R_c of a candidate, or what is wrong with it; an empty one, and a gated one, has a high R_c."""


@dataclass
class Scene:
    """Engines in which each event happens when the test says so: ("sampled" | "scored", index)."""

    rewards: Sequence[Scripted]
    pending: dict[tuple[str, int], asyncio.Future[None]] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)
    context: int = 2048
    vocabulary: int = 2048

    async def _event(self, name: str, index: int) -> None:
        event = self.pending[name, index] = asyncio.get_running_loop().create_future()
        try:
            await event
        finally:
            self.pending.pop((name, index), None)

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        self.started.append(index)
        if handle:

            async def abort() -> None:
                event = self.pending.get(("sampled", index))
                if event and not event.done():
                    event.set_exception(CandidateStopped(3))

            handle.abort = abort
        await self._event("sampled", index)
        scripted = self.rewards[index]
        if scripted == "failed":
            raise CandidateFailed("the engine ended it")
        return Candidate(index, "" if scripted == "empty" else text_of((index,)), "stop", TOKENS)

    async def score(self, prompt: Prompt, answer: str) -> float:
        index = int(answer.split()[1]) if answer else list(self.rewards).index("empty")
        await self._event("scored", index)
        scripted = self.rewards[index]
        if isinstance(scripted, float):
            return logit(scripted)
        return math.nan if scripted == "unscored" else logit(0.99 if scripted == "empty" else 0.1)

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    async def happen(self, *events: tuple[str, int]) -> None:
        for event in events:
            self.pending[event].set_result(None)
            await self.settle()

    async def finish(self, *indices: int) -> None:
        for index in indices:
            await self.happen(("sampled", index))
            if ("scored", index) in self.pending:
                await self.happen(("scored", index))


@dataclass
class SafetyModel:
    """R_s: low for gated candidates; R_h is the scene's."""

    rewards: Sequence[Scripted]

    async def score(self, prompt: Prompt, answer: str) -> float:
        return -3.0 if answer and self.rewards[int(answer.split()[1])] == "gated" else 3.0


@dataclass
class CountedRoom:
    """Room that is free as the test says; it counts the places that are held."""

    held: int
    ahead: Callable[[], bool] = lambda: True
    refuse: Literal["load", "deadline"] | None = None
    waves: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waves = [self.held]

    def take_ahead(self, candidates: int) -> bool:
        assert len(self.waves) == 1, "one wave ahead at most"
        if is_free := self.ahead():
            self.waves.append(candidates)
        return is_free

    def release_wave(self) -> None:
        self.waves.pop(0)

    async def next_wave(self, candidates: int, drawn: int) -> Literal["load", "deadline"] | None:
        await asyncio.sleep(0)
        if self.refuse and drawn:
            return self.refuse
        assert len(self.waves) == 1
        self.waves = [candidates]
        return None


def select(
    scene: Scene,
    waves: Waves,
    *,
    room: Room = UNBOUNDED,
    combiner: CombinerName = "llama2",
    early: EarlyStopping = NEVER,
    gain: float = 0.0,
    progress: list[Progress] | None = None,
) -> asyncio.Task[Selection]:
    def expected(best: float, seen: int, step: int, *, is_safety: bool) -> float:
        return gain * step * (1 - best)

    parts = BestOfN(scene, SafetyModel(scene.rewards), scene, expected_gain=expected)  # type: ignore[arg-type]
    k = len(scene.rewards)
    see = progress.append if progress is not None else None
    return asyncio.create_task(
        parts.select(PROMPT, SAMPLING, k, combiner, see, early_stopping=early, waves=waves, room=room)
    )


async def ended(scene: Scene, selecting: asyncio.Task[Selection]) -> Selection:
    selection = await asyncio.wait_for(selecting, 10)
    assert not scene.pending, "a candidate was left running"
    mine = ("CandidateRun", "BestOfN")
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if any(name in repr(task) for name in mine)], "a task was left behind"
    outcomes = [item.candidate.index for item in selection.scored] + [failure.index for failure in selection.failures]
    aborted = [item.index for item in selection.aborted]
    assert sorted([*outcomes, *aborted]) == sorted(scene.started), "every candidate is accounted for, once"
    return selection


async def in_order(
    scene: Scene, selecting: asyncio.Task[Selection], choose: Callable[[list[tuple[str, int]]], tuple[str, int]]
) -> Selection:
    """Let pending events happen in the order that `choose` gives, until the selection has been made."""
    await scene.settle()
    while not selecting.done():
        if scene.pending:
            await scene.happen(choose(sorted(scene.pending)))
        else:
            await asyncio.wait([selecting], timeout=10)
            assert selecting.done(), "it waits for nothing"
    return await ended(scene, selecting)


def expected_k(rewards: Sequence[Scripted], waves: Waves) -> int:
    """Return k by the definition: at each wave's end, from the rewards of the candidates before it alone."""
    for end in waves.ends(len(rewards)):
        seen = [reward for reward in rewards[:end] if isinstance(reward, float)]
        leads_gated = "gated" in rewards[:end] and max(seen, default=0.0) < 0.0474
        if seen and not leads_gated and max(seen) >= (waves.reward or 2):
            return end
    return len(rewards)


REWARDS = st.lists(
    st.one_of(st.integers(10, 99).map(lambda cent: cent / 100), st.sampled_from(["failed", "unscored"])),
    min_size=1,
    max_size=9,
)
WAVES = st.builds(Waves, st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.305, 0.605, 0.905]))


@settings(max_examples=150, deadline=None)
@given(REWARDS, WAVES, st.data())
def test_the_outcome_is_exact_best_of_k_in_every_order(
    rewards: list[Scripted], waves: Waves, data: st.DataObject
) -> None:
    """Also if waves are started ahead, and whatever their candidates come to before it is known that they count."""
    k = expected_k(rewards, waves)
    first = next(waves.ends(len(rewards)))

    async def run() -> None:
        scene = Scene(rewards)
        room = CountedRoom(first, lambda: data.draw(st.booleans()))
        selecting = select(scene, waves, room=room)
        try:
            selection = await in_order(scene, selecting, lambda events: data.draw(st.sampled_from(events)))
        except NoScoredCandidate:
            assert not any(isinstance(reward, float) for reward in rewards)
            assert len(scene.started) == len(rewards)
            return
        scored = {item.candidate.index for item in selection.scored}
        assert selection.candidates == k
        assert scored == {index for index in range(k) if isinstance(rewards[index], float)}
        best = max(scored, key=lambda index: (float(rewards[index]), -index))
        assert selection.winner.candidate.index == best
        assert {item.reason for item in selection.aborted} <= {"adaptive"}
        assert all(item.index >= k for item in selection.aborted)
        assert selection.waves == list(waves.ends(len(rewards))).index(k) + 1
        assert selection.stopped_by == ("candidates" if k == len(rewards) else "reward")
        assert sum(room.waves) == (k - ([0, *waves.ends(len(rewards))][selection.waves - 1])) + len(
            [index for index in scene.started if index >= k]
        ), "the places that are held are those of the last wave, and of one ahead"

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(REWARDS.filter(lambda rewards: any(isinstance(reward, float) for reward in rewards)), st.data())
def test_a_stop_looks_at_no_later_candidate(rewards: list[Scripted], data: st.DataObject) -> None:
    """Other candidates after k, and the same k: the decision is a function of the rewards before it."""
    waves = Waves(2, 2, 0.605)
    k = expected_k(rewards, waves)
    later = data.draw(st.lists(st.floats(0.1, 0.99), min_size=len(rewards) - k, max_size=len(rewards) - k))

    async def run() -> None:
        scene = Scene([*rewards[:k], *later])
        selecting = select(scene, waves, room=CountedRoom(2))
        selection = await in_order(scene, selecting, lambda events: data.draw(st.sampled_from(events)))
        assert selection.candidates == k

    asyncio.run(run())


async def test_the_next_wave_starts_when_the_last_candidate_has_been_sampled() -> None:
    scene = Scene([0.2, 0.3, 0.4, 0.95, 0.5, 0.5])
    selecting = select(scene, Waves(2, 2, 0.9), room=CountedRoom(2))
    await scene.settle()
    assert scene.started == [0, 1]
    await scene.finish(0)
    assert scene.started == [0, 1], "another is still being sampled"
    await scene.happen(("sampled", 1))
    assert scene.started == [0, 1, 2, 3], "though it has not been scored"
    await scene.happen(("sampled", 2), ("sampled", 3))
    assert len(scene.started) == 4, "one wave ahead at most"
    await scene.happen(("scored", 3))
    assert not selecting.done(), "it does not compete yet"
    await scene.happen(("scored", 1))
    assert scene.started == [0, 1, 2, 3], "the condition is met by candidate 3, once its wave counts"
    await scene.happen(("scored", 2))
    selection = await ended(scene, selecting)
    assert (selection.candidates, selection.waves, selection.stopped_by) == (4, 2, "reward")
    assert selection.winner.candidate.index == 3


async def test_a_wave_that_is_not_needed_is_aborted_and_does_not_compete_even_if_it_has_finished() -> None:
    scene = Scene([0.2, 0.9, 0.99, 0.3, 0.3, 0.3])
    selecting = select(scene, Waves(2, 3, 0.8), room=CountedRoom(2))
    await scene.settle()
    await scene.finish(0)
    await scene.happen(("sampled", 1))
    assert scene.started == [0, 1, 2, 3, 4]
    await scene.happen(("sampled", 2), ("scored", 2), ("sampled", 3), ("scored", 1))
    selection = await ended(scene, selecting)
    assert selection.winner.candidate.index == 1
    assert [(item.index, item.reason, item.tokens) for item in selection.aborted] == [
        (2, "adaptive", TOKENS),
        (3, "adaptive", TOKENS),
        (4, "adaptive", 3),
    ]
    assert (selection.candidates, selection.sampled_tokens) == (2, 4 * TOKENS + 3), "what was spent is counted"
    assert selection.truncated_by is None


async def test_no_wave_starts_ahead_if_the_condition_is_met_already() -> None:
    scene = Scene([0.95, 0.2, 0.3, 0.3])
    selecting = select(scene, Waves(2, 2, 0.9), room=CountedRoom(2))
    await scene.settle()
    await scene.finish(0)
    await scene.happen(("sampled", 1))
    assert scene.started == [0, 1]
    await scene.happen(("scored", 1))
    selection = await ended(scene, selecting)
    assert (selection.candidates, selection.aborted) == (2, ())


async def test_no_wave_starts_ahead_while_most_of_this_one_have_no_score() -> None:
    """Any of them may be good enough, and then what was started would have been sampled in vain."""
    scene = Scene([0.2] * 12)
    selecting = select(scene, Waves(4, 4, 0.9), room=CountedRoom(4))
    await scene.settle()
    await scene.happen(*(("sampled", index) for index in range(4)))
    await scene.happen(("scored", 2))
    assert len(scene.started) == 4
    await scene.happen(("scored", 0))
    assert len(scene.started) == 8
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert (selection.candidates, selection.waves) == (12, 3)


async def test_without_room_ahead_a_wave_waits_for_the_decision() -> None:
    scene = Scene([0.2, 0.3, 0.4])
    selecting = select(scene, Waves(1, 1, 0.9))
    for index in range(3):
        await scene.settle()
        assert scene.started == list(range(index + 1))
        await scene.happen(("sampled", index))
        assert len(scene.started) == index + 1
        await scene.happen(("scored", index))
    selection = await ended(scene, selecting)
    assert (selection.candidates, selection.waves, selection.stopped_by) == (3, 3, "candidates")


async def test_an_empty_answer_meets_no_condition() -> None:
    scene = Scene(["empty", 0.3, 0.4, 0.5])
    selecting = select(scene, Waves(1, 1, 0.4))
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert selection.candidates == 3
    assert selection.winner.candidate.index == 2


@pytest.mark.parametrize(("combiner", "k"), [("llama2", 1), ("safe_first", 2)])
async def test_under_safe_first_a_gated_candidate_meets_no_condition(combiner: CombinerName, k: int) -> None:
    """R_c of the gated one, 0.047, reaches the reward; with `llama2` it counts like any other."""
    scene = Scene(["gated", 0.5, 0.5])
    selecting = select(scene, Waves(1, 1, 0.04), combiner=combiner)
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert selection.candidates == k


async def test_a_first_wave_without_a_score_is_followed_by_the_next() -> None:
    scene = Scene(["failed", "unscored", 0.5, 0.4])
    selecting = select(scene, Waves(2, 1, 0.3))
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert (selection.candidates, selection.waves) == (3, 2)
    assert [failure.index for failure in selection.failures] == [0, 1]


async def test_there_is_an_error_only_if_all_candidates_fail() -> None:
    scene = Scene(["failed"] * 4)
    selecting = select(scene, Waves(2, 1, 0.3), room=CountedRoom(2))
    with pytest.raises(NoScoredCandidate, match="none of 4 candidates"):
        await in_order(scene, selecting, lambda events: events[0])


@pytest.mark.parametrize(("gain", "k"), [(0.001, 2), (0.01, 4), (1.0, 6)])
async def test_waves_end_when_the_expected_gain_of_a_candidate_is_below_the_price(gain: float, k: int) -> None:
    """The scripted gain of a candidate is `gain` times 1 − the best R_c; the price is 0.005."""
    scene = Scene([0.1, 0.4, 0.7, 0.2, 0.3, 0.3])
    selecting = select(scene, Waves(2, 2, gain=0.005), gain=gain)
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert (selection.candidates, selection.stopped_by) == (k, "gain" if k < 6 else "candidates")


async def test_accept_reward_aborts_the_rest_of_a_wave_and_ends_them() -> None:
    scene = Scene([0.2, 0.3, 0.95, 0.4, 0.4, 0.4])
    selecting = select(scene, Waves(2, 3, 0.99), early=EarlyStopping(accept_reward=0.9))
    await scene.settle()
    await scene.finish(0, 1, 2)
    selection = await ended(scene, selecting)
    assert (selection.truncated_by, selection.stopped_by, selection.candidates) == ("accept_reward", "reward", 5)
    assert {item.index: item.reason for item in selection.aborted} == {3: "accept_reward", 4: "accept_reward"}


async def test_no_wave_starts_after_the_deadline() -> None:
    scene = Scene([0.2, 0.3, 0.4, 0.5])
    selecting = select(scene, Waves(2, 2, 0.9), early=EarlyStopping(deadline=time.monotonic() - 1))
    await scene.settle()
    await scene.happen(("sampled", 0), ("sampled", 1), ("scored", 0))
    selection = await ended(scene, selecting)
    assert (selection.truncated_by, selection.stopped_by, selection.candidates) == ("deadline", "deadline", 2)
    assert selection.reduced_by == "deadline"


async def test_after_the_deadline_there_is_an_answer_nevertheless() -> None:
    scene = Scene(["failed", 0.3, 0.4])
    selecting = select(scene, Waves(1, 1, 0.9), early=EarlyStopping(deadline=time.monotonic() - 1))
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert (selection.candidates, selection.stopped_by) == (2, "deadline")


@pytest.mark.parametrize("reason", ["load", "deadline"])
async def test_without_room_the_answer_is_the_best_so_far_and_says_why(reason: Literal["load", "deadline"]) -> None:
    scene = Scene(["failed", 0.3, 0.4])
    selecting = select(scene, Waves(1, 1, 0.9), room=CountedRoom(1, lambda: False, reason))
    selection = await in_order(scene, selecting, lambda events: events[0])
    assert (selection.candidates, selection.stopped_by, selection.reduced_by) == (2, reason, reason)


async def test_progress_counts_the_candidates_that_are_known_to_be_needed() -> None:
    scene, seen = Scene([0.2, 0.3, 0.95]), list[Progress]()
    selecting = select(scene, Waves(1, 1, 0.9), room=CountedRoom(1), progress=seen)
    await in_order(scene, selecting, lambda events: events[-1])
    assert [(now.finished, now.scored, now.candidates) for now in seen] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


async def test_the_times_of_later_waves_count_from_the_start_of_the_selection() -> None:
    scene = Scene([0.2, 0.3])
    selecting = select(scene, Waves(1, 1, 0.9))
    timings = (await in_order(scene, selecting, lambda events: events[0])).timings
    assert 0 <= timings.first_candidate < timings.generate <= timings.total, "the scripted candidates take no time"


@pytest.mark.parametrize("events", range(6))
async def test_cancelling_leaves_nothing_running(events: int) -> None:
    scene = Scene([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    selecting = select(scene, Waves(1, 2, 0.9), room=CountedRoom(1))
    await scene.settle()
    for _ in range(events):
        await scene.happen(sorted(scene.pending)[0])
    selecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await selecting
    assert not scene.pending


async def test_a_dead_engine_ends_all_waves() -> None:
    scene = Scene([0.2, 0.3, 0.4, 0.5])
    selecting = select(scene, Waves(2, 2, 0.9), room=CountedRoom(2))
    await scene.settle()
    await scene.finish(0)
    await scene.happen(("sampled", 1))
    scene.pending["sampled", 3].set_exception(EngineDead("gone"))
    with pytest.raises(EngineDead):
        await selecting
    assert not scene.pending


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_the_ends_of_waves_rise_to_k(start: int, step: int, k: int, least: int) -> None:
    ends = list(Waves(start, step, 0.9).ends(k, least))
    assert ends[0] == min(k, max(start, least))
    assert ends[-1] == k
    assert all(later - earlier == step for earlier, later in itertools.pairwise(ends[:-1]))
    assert all(0 < later - earlier <= step for earlier, later in itertools.pairwise(ends))


@pytest.mark.engine
async def test_waves_draw_the_candidates_of_exact_best_of_k_on_real_engines(service: Service) -> None:
    prompt = service.template.render([Message("user", "Name three fruits.")], service.tokenizer)
    sampling = Sampling(max_tokens=32, seed=11)
    exact = await service.pipeline.select(prompt, sampling, 8, "llama2")
    reward = exact.winner.reward.combined
    waves = Waves(1, 2, min(1.0, reward))
    adaptive = await service.pipeline.select(prompt, sampling, 8, "llama2", waves=waves, room=CountedRoom(1))
    k = next(end for end in waves.ends(8) if end > exact.winner.candidate.index)
    assert adaptive.candidates == k
    assert adaptive.winner.candidate.text == exact.winner.candidate.text
    assert [item.candidate.text for item in adaptive.scored] == [item.candidate.text for item in exact.scored[:k]]
    assert sum(engine.unfinished for engine in service.engines.values()) == 0
