"""Several servers of one model: which one is asked, what happens as they die, hang and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.model_servers import Ids, ModelServer, Reply, Seen, classifier, pool, until
from winnow.models.engines import endpoint, model_server
from winnow.models.engines.classify import RemoteClassifier
from winnow.models.errors import CandidateFailed, ModelUnavailable
from winnow.models.types import Prompt

pytestmark = pytest.mark.asyncio(loop_scope="function")  # an engine's connections end with its loop
PROMPT = Prompt((1, 2, 3))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)


@pytest.fixture
def first() -> Iterator[ModelServer]:
    with ModelServer.running(classifier()) as running:
        yield running


@pytest.fixture
def second() -> Iterator[ModelServer]:
    with ModelServer.running(classifier()) as running:
        yield running


def engine(*servers: ModelServer, **more: object) -> RemoteClassifier:
    model = RemoteClassifier("safety", pool("classify", *servers, **more), 2048, Ids())
    servers[0].users.append(model)
    return model


async def scored(model: RemoteClassifier, count: int) -> list[float]:
    """Scores of different prompts, so that each is a request of its own."""
    return list(await asyncio.gather(*(model.score(Prompt((place,)), "abc") for place in range(count))))


EXPECTED = [float((place + 3) % 7 - 3) for place in range(20)]


async def test_the_least_busy_server_is_asked(first: ModelServer, second: ModelServer) -> None:
    never = threading.Event()
    first.script = second.script = lambda seen: Reply(hold=never)
    model = engine(first, second)
    tasks = [asyncio.create_task(model.score(Prompt((place,)), "a")) for place in range(10)]
    await until(lambda: (len(first.posts()), len(second.posts())) == (5, 5))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: first.left + second.left == 10)
    assert model.unfinished == 0


async def test_a_server_that_is_busy_for_a_moment_is_waited_for_rather_than_one_that_is_for_an_hour(
    first: ModelServer, second: ModelServer
) -> None:
    healthy = second.script
    first.script = lambda seen: Reply({}, 429, {"Retry-After": "3600"})
    second.script = lambda seen: Reply({}, 429, {"Retry-After": "0.1"}) if len(second.posts()) % 2 else healthy(seen)
    model = engine(first, second, seconds=60)
    assert await scored(model, 20) == EXPECTED
    assert len(first.posts()) <= 20


async def test_what_a_dead_server_had_in_flight_is_answered_by_the_other(
    first: ModelServer, second: ModelServer
) -> None:
    never = threading.Event()
    first.script = lambda seen: Reply(hold=never)
    model = engine(first, second)
    waiting = asyncio.create_task(scored(model, 20))
    await until(lambda: len(first.posts()) >= 5)
    first.kill()
    assert await asyncio.wait_for(waiting, 10) == EXPECTED
    assert model.outage is None
    assert await scored(model, 20) == EXPECTED
    down, up = model.server.endpoints
    assert (down.outage, up.outage) == ("it cannot be connected to", None)


async def test_a_server_that_is_back_is_used_again_and_none_is_an_outage(
    first: ModelServer, second: ModelServer
) -> None:
    model = engine(first, second)
    first.kill()
    second.kill()
    with pytest.raises(ModelUnavailable, match="the safety reward model is not available: it cannot be connected to"):
        await scored(model, 1)
    assert model.outage
    second.start()
    await until(lambda: model.outage is None)
    assert await scored(model, 20) == EXPECTED
    first.start()
    await until(lambda: not any(one.outage for one in model.server.endpoints))
    before = len(first.posts())
    assert await scored(model, 20) == EXPECTED
    assert len(first.posts()) >= before + 5


async def test_a_server_that_had_not_answered_at_the_start_is_asked_first_whether_it_is_the_same(
    first: ModelServer, second: ModelServer
) -> None:
    second.script = classifier(lambda ids: 99.0, name="rm", root="another/model")
    model = engine(first, second, absent=[second])
    assert await scored(model, 20) == EXPECTED
    await until(lambda: "another model" in str(model.server.endpoints[1].outage))
    assert not second.posts()
    second.script = classifier()
    await until(lambda: model.server.endpoints[1].outage is None)
    assert await scored(model, 20) == EXPECTED


async def test_a_busy_server_is_left_alone_for_as_long_as_it_says(first: ModelServer, second: ModelServer) -> None:
    first.script = lambda seen: Reply({}, 429, {"Retry-After": "30"})
    model = engine(first, second)
    assert await scored(model, 20) == EXPECTED
    asked = len(first.posts())
    assert await scored(model, 20) == EXPECTED
    assert len(first.posts()) == asked
    second.script = first.script
    with pytest.raises(ModelUnavailable, match="it is busy") as told:
        await asyncio.wait_for(engine(first, second, seconds=5).score(PROMPT, "a"), 4)
    assert told.value.retry_after > 20


async def test_a_request_that_fails_everywhere_fails_alone(first: ModelServer, second: ModelServer) -> None:
    def script(seen: Seen) -> Reply:
        poisoned = seen.method == "POST" and 66 in seen.body["input"][0]
        return Reply({}, 500) if poisoned else classifier()(seen)

    first.script = second.script = script
    model = engine(first, second)
    with pytest.raises(CandidateFailed, match="fails on this answer"):
        await model.score(Prompt((66,)), "a")
    assert model.outage is None
    assert await scored(model, 20) == EXPECTED


async def test_a_server_that_fails_on_everything_is_found_out(first: ModelServer, second: ModelServer) -> None:
    """One whose engine is dead answers at once, with 500, and would be the least busy for ever."""
    first.script = lambda seen: Reply({}, 500)
    model = engine(first, second)
    while model.server.endpoints[0].outage is None:
        assert await scored(model, 5) == EXPECTED[:5]
    asked = len(first.posts())
    assert await scored(model, 20) == EXPECTED
    assert all(len(seen.body["input"][0]) == 2 for seen in first.posts()[asked:]), "probes only"


async def test_a_server_that_hangs_loses_what_it_holds_to_the_other(
    first: ModelServer, second: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(endpoint, "PROBE_TIMEOUT", 1.0)
    never = threading.Event()
    first.script = lambda seen: Reply(hold=never)
    model = engine(first, second)
    assert await asyncio.wait_for(scored(model, 20), 20) == EXPECTED
    assert model.server.endpoints[0].outage


async def test_a_slow_server_that_is_there_is_waited_for(
    first: ModelServer, second: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "SILENT_SECONDS", 0.05)
    ready = threading.Event()

    def slow(seen: Seen) -> Reply:
        reply = classifier()(seen)
        reply.hold = ready if seen.method == "POST" else None
        return reply

    first.script = second.script = slow
    model = engine(first, second)
    waiting = asyncio.create_task(scored(model, 4))
    await until(lambda: all(sum(seen.method == "GET" for seen in one.seen) >= 2 for one in (first, second)))
    ready.set()
    assert await waiting == EXPECTED[:4]
    assert not any(one.outage for one in model.server.endpoints)


async def test_a_lost_connection_is_no_outage_by_itself(first: ModelServer, second: ModelServer) -> None:
    replies = iter([Reply(drop=True)])
    first.script = lambda seen: next(replies, None) or classifier()(seen)
    model = engine(first, second)
    assert await scored(model, 2) == EXPECTED[:2]
    assert model.server.retries == 1
    assert not any(one.outage for one in model.server.endpoints)
