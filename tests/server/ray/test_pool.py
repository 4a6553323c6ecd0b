"""The pool of actors, over actors of this process: every argument and answer is pickled as on the way to another."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests import scripted_ray
from winnow.models.engines.environment import START_METHOD
from winnow.models.errors import NoScoredCandidate, PromptTooLong, RequestError, RunError, unavailable
from winnow.models.types import Failure, Message
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.parser import Task
from winnow.server.pipeline.request import Request, RequestOptions, resolve
from winnow.server.pipeline.waves import Waves
from winnow.server.ray import actor as actor_module
from winnow.server.ray import pool as pool_module
from winnow.server.ray.actor import EngineActor, Orders, Refused
from winnow.server.ray.pool import ActorPool, Errors, OnActors
from winnow.server.service import Service
from winnow.server.settings import Settings


class Gone(Exception):
    """The actor has died."""


class Dead(Gone):
    """The actor has died for good."""


class Away(Gone):
    """The actor's process is being started."""


class Own(Gone):
    """The actor's code has raised."""


class Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    async def remote(self, *arguments: Any) -> Any:
        return pickle.loads(pickle.dumps(await self._call(*pickle.loads(pickle.dumps(arguments)))))


class Handle:
    """A handle on an actor of this process; `crash` ends what it has in flight."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.crashed = asyncio.Event()

    def __getattr__(self, name: str) -> Method:
        return Method(partial(self._call, getattr(self.actor, name)))

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        work, crash = asyncio.ensure_future(method(*arguments)), asyncio.ensure_future(self.crashed.wait())
        await asyncio.wait([work, crash], return_when=asyncio.FIRST_COMPLETED)
        crash.cancel()
        if work.done():
            return work.result()
        work.cancel()
        raise Gone


class Echo:
    """An actor whose calls wait for `hold`."""

    def __init__(self, fault: str | None = None, hold: bool = False) -> None:
        self.fault = fault
        self.hold = asyncio.Event()
        self.calls: list[Any] = []
        self.closed = False
        if not hold:
            self.hold.set()

    async def start(self) -> str | None:
        return self.fault

    async def answer(self, value: Any) -> Any:
        self.calls.append(value)
        await self.hold.wait()
        return value

    async def close(self) -> None:
        self.closed = True


def pool_of(*handles: Handle, room: int = 8, **options: Any) -> ActorPool:
    waiting = iter(handles)
    return ActorPool(
        lambda: next(waiting), options.pop("size", len(handles)), room, Errors(Gone, Own, Dead, Away), **options
    )


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PAUSE", 0.001)
    monkeypatch.setenv(START_METHOD, "fork")  # an actor changes it, and must leave it as it was here


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_calls_go_where_the_fewest_candidates_are_and_the_rest_waits() -> None:
    first, second = Echo(hold=True), Echo(hold=True)
    pool = pool_of(Handle(first), Handle(second))
    async with pool.running():
        await settled()
        calls = [asyncio.create_task(pool.call("answer", weight, weight=weight)) for weight in (6, 2, 2, 9, 1)]
        await settled()
        assert first.calls == [6]
        assert second.calls == [2, 2]  # 9 waits for an idle one, and 1 behind it
        second.hold.set()
        await settled()
        assert (first.calls, second.calls) == ([6, 1], [2, 2, 9])
        first.hold.set()
        assert await asyncio.gather(*calls) == [6, 2, 2, 9, 1]
    assert first.closed
    assert second.closed


async def test_what_a_lost_actor_had_in_flight_goes_to_another() -> None:
    held, free = Handle(Echo(hold=True)), Handle(Echo())
    pool = pool_of(held, free, room=1)
    async with pool.running():
        await settled()
        calls = [asyncio.create_task(pool.call("answer", number)) for number in range(4)]
        await settled()
        assert len(held.actor.calls) == 1
        held.actor = Echo()
        held.crashed.set()
        assert await asyncio.wait_for(asyncio.gather(*calls), 10) == [0, 1, 2, 3]
        held.crashed.clear()
        assert await pool.call("answer", 4) == 4


async def test_an_actor_that_has_just_begun_counts_as_lost() -> None:
    class New(Echo):
        starts = 0

        async def start(self) -> str | None:
            self.starts += 1
            return None

        async def answer(self, value: Any) -> Any:
            return await super().answer(value) if self.starts > 1 else Refused.UNREADY

    pool = pool_of(Handle(New()))
    async with pool.running():
        assert await asyncio.wait_for(pool.call("answer", 1), 10) == 1


async def test_a_call_that_kills_every_actor_fails_alone() -> None:
    class Fragile(Echo):
        async def answer(self, value: Any) -> Any:
            if value == "poison":
                raise Gone
            return value

    pool = pool_of(Handle(Fragile()), Handle(Fragile()))
    async with pool.running():
        with pytest.raises(NoScoredCandidate, match="died 8 times"):
            await asyncio.wait_for(pool.call("answer", "poison"), 10)
        assert await pool.call("answer", "food") == "food"


async def test_each_candidate_of_a_request_that_kills_every_actor_has_failed() -> None:
    class Fragile(Echo):
        async def answer(self, asked: Any, first: int) -> Any:  # type: ignore[override]
            raise Gone

    pool = pool_of(Handle(Fragile()))
    async with pool.running():
        with pytest.raises(NoScoredCandidate, match="died 8 times") as found:
            await asyncio.wait_for(OnActors(pool)(request(candidates=3), 8), 10)
    assert [failure.index for failure in found.value.failures] == [0, 1, 2]


async def test_errors_of_the_actors_own_are_raised() -> None:
    class Broken(Echo):
        async def answer(self, value: Any) -> Any:
            raise Own("a fault")

    pool = pool_of(Handle(Broken()))
    async with pool.running():
        with pytest.raises(Own):
            await pool.call("answer", 1)


async def test_a_dead_actor_is_replaced() -> None:
    class Buried(Echo):
        async def start(self) -> str | None:
            raise Dead

    pool = pool_of(Handle(Buried()), Handle(Echo()), size=1)
    async with pool.running():
        assert await asyncio.wait_for(pool.call("answer", 1), 10) == 1


async def test_an_actor_may_take_longer_to_come_back_than_its_deaths_may_be_many() -> None:
    """Regression: while Ray loaded it anew, each call failed at once, and eight of them counted as deaths."""

    class Loading(Echo):
        asked = 0

        async def start(self) -> str | None:
            self.asked += 1
            if self.asked < 5 * pool_module.MOST_STARTS:
                raise Away("the actor is restarting")
            return None

    pool = pool_of(Handle(Loading()))
    async with pool.running():
        assert await asyncio.wait_for(pool.call("answer", 1), 10) == 1


async def test_a_pool_whose_actors_stay_away_ends_in_time_and_says_why() -> None:
    class Lost(Echo):
        async def start(self) -> str | None:
            raise Away("the actor is restarting")

    with pytest.raises(RunError, match=r"ready for 0\.02 s: the actor is restarting"):
        async with pool_of(Handle(Lost()), outage_seconds=0.02).running():
            pass


async def test_an_actor_waits_for_a_model_on_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a server that was down for a moment, as the actor started, cost the run the actor for good."""
    asked: list[None] = []

    async def warm_up(service: Service) -> None:
        asked.append(None)
        if len(asked) < 2 * pool_module.MOST_STARTS:
            raise unavailable("safety", "it cannot be connected to")

    monkeypatch.setattr(Service, "warm_up", warm_up)
    actor = EngineActor(Orders.of(Settings(canary=False), scripted_ray.started))
    pool = pool_of(Handle(actor))
    async with pool.running():
        assert (await OnActors(pool)(request(candidates=1))).prompt_tokens
    assert len(asked) == 2 * pool_module.MOST_STARTS


async def test_a_run_goes_on_without_an_actor_that_cannot_start_and_ends_without_any() -> None:
    pool = pool_of(Handle(Echo("no memory")), Handle(Echo()))
    async with pool.running():
        assert await asyncio.gather(*(pool.call("answer", number) for number in range(3))) == [0, 1, 2]
    with pytest.raises(RunError, match="no actor can start: no memory"):
        async with pool_of(Handle(Echo("no memory"))).running():
            pass

    class Crashing(Echo):
        async def start(self) -> str | None:
            raise Gone("the node is full")

    with pytest.raises(RunError, match="died 8 times as it started: the node is full"):
        async with pool_of(Handle(Crashing())).running():
            pass


async def test_a_pool_without_a_ready_actor_ends_in_time() -> None:
    class Endless(Echo):
        async def start(self) -> str | None:
            await asyncio.Event().wait()
            return None

    with pytest.raises(RunError, match="no actor has been ready"):
        async with pool_of(Handle(Endless()), outage_seconds=0.01).running():
            pass


async def test_a_cancelled_call_leaves_its_place() -> None:
    actor = Echo(hold=True)
    pool = pool_of(Handle(actor), room=1)
    async with pool.running():
        calls = [asyncio.create_task(pool.call("answer", number)) for number in range(3)]
        await settled()
        calls[0].cancel()
        calls[1].cancel()
        actor.hold.set()
        assert await asyncio.wait_for(calls[2], 10) == 2


def request(content: str = "What is the moon?", **options: Any) -> Request:
    base = resolve((Message("user", content),), RequestOptions(**options), scripted().defaults)
    return replace(base, is_safety=False, sampling=replace(base.sampling, seed=5))


def scripted() -> Any:
    with scripted_ray.started(Settings(canary=False, safety_classifier="probe")) as service:
        return service


@pytest.mark.parametrize(
    ("options", "first"),
    [({"candidates": 4}, 0), ({"candidates": 3}, 5), ({"candidates": 8, "adaptive": Waves(2, 2, reward=0.9)}, 0)],
)
async def test_an_actor_answers_as_a_process_of_its_own_does(
    options: dict[str, Any], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scripted_ray.TICK, "0.001")
    orders = Orders.of(Settings(canary=False, safety_classifier="probe"), scripted_ray.started)
    task = Task(1, None, "-", 1, (Message("user", "How are you?"),))
    backend = InProcess(scripted(), batch_seconds=0)
    pool = pool_of(Handle(EngineActor(pickle.loads(pickle.dumps(orders)))))
    async with pool.running():
        on_actors = OnActors(pool)
        asked = request(**options)
        here, there = await backend(asked, first), await on_actors(asked, first)
        assert replace(here.selection, timings=there.selection.timings) == there.selection
        assert here.prompt_tokens == there.prompt_tokens
        assert await on_actors.is_safety(task) == await backend.is_safety(task)
        with pytest.raises(PromptTooLong) as expected:
            await backend(request("word " * 5000))
        with pytest.raises(RequestError) as found:
            await on_actors(request("word " * 5000))
        assert (str(found.value), found.value.code, found.value.param) == (
            str(expected.value),
            expected.value.code,
            expected.value.param,
        )


def test_errors_survive_the_way() -> None:
    lost = NoScoredCandidate("nothing", (Failure(0, "no text"),))
    with pytest.raises(NoScoredCandidate) as found:
        pickle.loads(pickle.dumps(Refused.of(lost))).raised()
    assert found.value.failures == lost.failures
    with pytest.raises(RunError, match="other"):
        Refused.of(RunError("other")).raised()


async def test_an_actor_with_other_models_is_not_used() -> None:
    orders = replace(Orders.of(Settings(canary=False), scripted_ray.started), models="another fingerprint")
    assert "not those of the run" in (await EngineActor(orders).start() or "")


def test_settings_are_sent_whole(tmp_path: Any) -> None:
    from winnow.server.settings import load

    file = tmp_path / "winnow.toml"
    file.write_text("max_tokens = 77\n[policy]\ncontext = 256\n")
    settings = load(file, api_keys=["secret"])
    sent = pickle.loads(pickle.dumps(Orders.of(settings, scripted_ray.started))).settings
    assert (sent.max_tokens, sent.policy.context, sent.api_keys) == (77, 256, settings.api_keys)
    assert type(sent) is Settings


async def test_an_actor_whose_engine_dies_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()
    monkeypatch.setattr(actor_module, "_end_process", ended.set)
    actor = EngineActor(Orders.of(Settings(canary=False), scripted_ray.started))
    assert await actor.start() is None
    assert actor._service
    actor._service.policy.shutdown()
    await asyncio.wait_for(ended.wait(), 60)
    await actor.close()
