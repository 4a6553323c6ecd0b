"""The client of a model server: retries, the circuit and its recovery, limits, and what is never told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.model_servers import KEY, Ids, ModelServer, Reply, Seen, classifier, remote, scores, until
from winnow.models.engines import endpoint, model_server
from winnow.models.engines.classify import RemoteClassifier
from winnow.models.engines.model_server import ATTEMPTS
from winnow.models.errors import CandidateFailed, ModelUnavailable
from winnow.models.types import Prompt

pytestmark = pytest.mark.asyncio(loop_scope="function")  # an engine's connections end with its loop
PROMPT = Prompt((1, 2, 3))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)
    monkeypatch.setattr(endpoint, "PROBE_TIMEOUT", 1.0)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer.running(classifier()) as running:
        yield running


def engine(server: ModelServer, **limits: Any) -> RemoteClassifier:
    model = RemoteClassifier("safety", remote(server, **limits), 2048, Ids())
    server.users.append(model)
    return model


async def recovered(model: RemoteClassifier) -> None:
    await until(lambda: model.outage is None)


async def test_a_score_is_the_raw_logit_of_the_ids(server: ModelServer) -> None:
    assert await engine(server).score(PROMPT, "abcd") == float((1 + 2 + 3 + 4) % 7 - 3)
    (seen,) = server.posts()
    assert seen.path == "/classify"
    assert seen.body == {"model": "rm", "input": [[1, 2, 3, 4]], "use_activation": False}
    assert seen.headers["authorization"] == f"Bearer {KEY}"


async def test_many_scores_keep_their_places_and_the_bound(server: ModelServer) -> None:
    server.script = classifier(lambda ids: float(ids[-1]))
    model = engine(server, connections=3)
    answers = ["x" * length for length in range(1, 40)]
    assert await asyncio.gather(*(model.score(PROMPT, answer) for answer in answers)) == list(map(float, range(1, 40)))
    assert len({seen.headers["host"] for seen in server.seen}) == 1
    assert model.unfinished == 0


@pytest.mark.parametrize("failure", [Reply({}, 502), Reply({}, 503), Reply({}, 504), Reply({}, 500), Reply(drop=True)])
async def test_what_may_pass_is_tried_again(server: ModelServer, failure: Reply) -> None:
    replies = iter([failure, failure, scores(1.5)])
    server.script = lambda seen: next(replies)
    model = engine(server)
    assert await model.score(PROMPT, "a") == 1.5
    assert (model.outage, model.server.retries) == (None, 2)


async def test_a_busy_server_is_given_the_time_that_it_asks_for(server: ModelServer) -> None:
    replies = iter([Reply({}, 429, {"Retry-After": "0.01"})] * (2 * ATTEMPTS) + [scores(2.0)])
    server.script = lambda seen: next(replies)
    assert await engine(server).score(PROMPT, "a") == 2.0


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}])
async def test_a_busy_server_that_names_no_time_is_asked_less_and_less(
    server: ModelServer, headers: dict[str, str]
) -> None:
    """A rate limit without advice, or with `Retry-After: 0`, was met with up to a thousand requests a minute each."""
    server.script = lambda seen: Reply({}, 429, headers)
    model = engine(server, seconds=0.5)
    with pytest.raises(ModelUnavailable, match=r"it is busy \(status 429\)"):
        await model.score(PROMPT, "a")
    assert len(server.posts()) < 10
    assert model.outage is None


async def test_a_server_that_stays_busy_ends_the_request_but_is_not_down(server: ModelServer) -> None:
    server.script = lambda seen: Reply({}, 429, {"Retry-After": "7"})
    model = engine(server, seconds=0.5)
    with pytest.raises(ModelUnavailable, match=r"it is busy \(status 429\)") as caught:
        await model.score(PROMPT, "a")
    assert (caught.value.retry_after, model.outage) == (7, None)
    assert len(server.posts()) == 1


async def test_a_dead_server_opens_the_circuit_and_is_used_again_once_it_is_back(server: ModelServer) -> None:
    model = engine(server)
    before = await model.score(PROMPT, "a")
    server.kill()
    with pytest.raises(ModelUnavailable, match="the safety reward model is not available: it cannot be connected to"):
        await model.score(PROMPT, "a")
    assert model.outage
    assert model.is_alive
    with pytest.raises(ModelUnavailable):  # at once, without a connection
        await model.score(PROMPT, "b")
    server.start()
    await recovered(model)
    assert await model.score(PROMPT, "a") == before


async def test_a_server_that_comes_back_with_another_model_stays_refused(server: ModelServer) -> None:
    model = engine(server)
    server.kill()
    with pytest.raises(ModelUnavailable):
        await model.score(PROMPT, "a")
    server.script = classifier(name="rm", root="other/model")
    server.start()
    await until(lambda: "another model" in str(model.outage))
    server.script = classifier()
    await recovered(model)


async def test_a_server_that_fails_on_one_answer_fails_that_candidate(server: ModelServer) -> None:
    def script(seen: Seen) -> Reply:
        return Reply({}, 500) if seen.method == "POST" and len(seen.body["input"][0]) > 2 else classifier()(seen)

    server.script = script
    model = engine(server)
    with pytest.raises(CandidateFailed, match="fails on this answer"):
        await model.score(PROMPT, "a")
    assert model.outage is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply({}, 302, {"Location": "http://127.0.0.1:9/classify"}), r"a redirect \(status 302\)"),
        (Reply({"error": {"message": KEY}}, 401), r"refuses the key \(status 401\)"),
        (Reply({}, 404), "no longer serves the model"),
    ],
)
async def test_what_every_request_would_meet_opens_the_circuit_at_once(
    server: ModelServer, reply: Reply, reason: str
) -> None:
    server.script = lambda seen: reply
    model = engine(server)
    with pytest.raises(ModelUnavailable, match=reason):
        await model.score(PROMPT, "a")
    assert model.outage
    assert len(server.posts()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[" * 100_000,
        b"x" * (5 * 2**20),
        {},
        [],
        {"data": []},
        {"data": [{"probs": [1.0]}, {"probs": [2.0]}]},
        {"data": [{"probs": []}]},
        {"data": [{"index": 1, "probs": [1.0]}]},
        {"data": [{"probs": ["1"]}]},
        {"data": [{"probs": [True]}]},
        {"data": [{"probs": [1.0, 2.0, 3.0]}]},
    ],
)
async def test_an_answer_that_is_no_score_is_never_one(server: ModelServer, body: Any) -> None:
    """It fails the candidate where others are answered; else the server counts as down.

    A proxy that answered each request with its login page and status 200 made every request a 500, sampled all the
    same, and `winnow distill` wrote every prompt off.
    """
    is_page = threading.Event()

    def script(seen: Seen) -> Reply:
        is_answer = seen.method == "POST" and len(seen.body["input"][0]) > 2
        return Reply(body) if is_answer or is_page.is_set() else classifier()(seen)

    server.script = script
    model = engine(server)
    with pytest.raises(CandidateFailed, match="fails on this answer"):
        await model.score(PROMPT, "a")
    assert model.outage is None
    is_page.set()
    with pytest.raises(ModelUnavailable):
        await model.score(PROMPT, "a")
    assert model.outage


async def test_an_answer_of_another_form_may_pass(server: ModelServer) -> None:
    replies = iter([Reply(b"<html>"), Reply({}), scores(1.5)])
    server.script = lambda seen: next(replies)
    assert await engine(server).score(PROMPT, "a") == 1.5


@pytest.mark.parametrize("body", [b'{"data": [{"probs": [NaN]}]}', {"data": [{"probs": [None]}]}])
async def test_no_number_is_not_a_number(server: ModelServer, body: Any) -> None:
    server.script = lambda seen: Reply(body)
    score = await engine(server).score(PROMPT, "a")
    assert score != score


async def test_a_refused_answer_has_the_servers_reason_but_nothing_of_the_request(server: ModelServer) -> None:
    long = "This model's maximum context length is 8 tokens. However, you wrote secret words 77 [1, 2, 3]"
    server.script = lambda seen: Reply({"error": {"message": long}}, 400)
    with pytest.raises(CandidateFailed, match=r"maximum context length is 8 tokens$") as told:
        await engine(server).score(PROMPT, "a" * 77)
    assert "77" not in str(told.value)
    server.script = lambda seen: Reply({"error": {"message": "you wrote secret words", "code": "bad_input"}}, 422)
    with pytest.raises(CandidateFailed, match=r"\(status 422\): bad_input$"):
        await engine(server).score(PROMPT, "a")


async def test_a_server_that_hangs_on_one_answer_fails_that_candidate(server: ModelServer) -> None:
    never = threading.Event()

    def script(seen: Seen) -> Reply:
        return Reply(hold=never) if seen.method == "POST" and len(seen.body["input"][0]) > 2 else classifier()(seen)

    server.script = script
    model = engine(server, seconds=0.1)
    with pytest.raises(CandidateFailed, match="fails on this answer"):
        await model.score(PROMPT, "a")
    assert model.outage is None


async def test_a_slow_server_is_not_waited_for(server: ModelServer) -> None:
    never = threading.Event()
    server.script = lambda seen: Reply({}, hold=never)
    with pytest.raises(ModelUnavailable, match="answer"):
        await engine(server, seconds=0.1).score(PROMPT, "a")
    await until(lambda: server.left >= 1)


async def test_cancelling_a_score_closes_its_request(server: ModelServer) -> None:
    never = threading.Event()
    server.script = lambda seen: Reply({}, hold=never)
    model = engine(server)
    task = asyncio.create_task(model.score(PROMPT, "a"))
    await until(lambda: bool(server.posts()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.left == 1)
    await until(lambda: model.unfinished == 0)
    assert model.outage is None


async def test_no_key_and_no_text_is_logged(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # a library's own tracing, which no setting turns on
    model = engine(server)
    server.kill()
    with pytest.raises(ModelUnavailable) as caught:
        await model.score(PROMPT, "an answer")
    server.start()
    await recovered(model)
    await model.score(PROMPT, "an answer")
    assert "is down" in caplog.text
    for text in (caplog.text, str(caught.value), repr(model.remote)):
        assert KEY not in text
        assert "an answer" not in text


async def test_a_server_whose_connections_are_all_silent_is_still_asked_and_not_declared_down(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question waited for a connection of the requests' own, and a saturated server lost all of them."""
    monkeypatch.setattr(endpoint, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(endpoint, "PROBE_TIMEOUT", 5.0)
    healthy, answered = server.script, threading.Event()
    server.script = lambda seen: healthy(seen) if seen.method == "GET" else Reply(healthy(seen).body, hold=answered)
    model = engine(server, connections=2)
    tasks = [asyncio.create_task(model.score(Prompt((place,)), "a")) for place in range(4)]
    await until(lambda: sum(seen.method == "GET" for seen in server.seen) >= 2)
    assert len(server.posts()) == 2
    answered.set()
    assert await asyncio.gather(*tasks) == [float((place + 1) % 7 - 3) for place in range(4)]
    assert (model.outage, model.server.retries) == (None, 0)


async def test_an_answer_that_is_too_much_is_not_asked_for_again(server: ModelServer) -> None:
    """It was read four times in full, to be refused each time."""
    much = b"[%s0]" % (b"0," * (endpoint.MAX_BYTES // 2))
    healthy = server.script
    server.script = lambda seen: (
        Reply(much) if seen.method == "POST" and len(seen.body["input"][0]) > 2 else healthy(seen)
    )
    model = engine(server)
    with pytest.raises(CandidateFailed, match=r"fails on this answer \(it answers with too much, more than 4 MiB"):
        await model.score(PROMPT, "a")
    assert [len(seen.body["input"][0]) for seen in server.posts()] == [4, 2], "the answer once, and a probe"
    assert (model.outage, model.server.retries) == (None, 0)


async def test_a_long_page_of_an_error_is_an_error(server: ModelServer) -> None:
    replies = iter([Reply(b" " * (endpoint.MAX_BYTES + 1), 503), scores(1.5)])
    server.script = lambda seen: next(replies)
    assert await engine(server).score(PROMPT, "a") == 1.5
