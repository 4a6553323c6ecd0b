"""The outcome of requests for every behaviour of the engines; over real HTTP, on scripted engines."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel, WatchedTokenizer
from tests.live import ScriptedServer, question, scripted, wait_until
from winnow.clients.schema import ChatCompletion, ErrorBody
from winnow.models.errors import CandidateFailed, EngineDead, ShuttingDown
from winnow.models.tokenizer import LONG_TEXT, Tokenizer

SAFE, GATED = 2.0, -3.0


@pytest.fixture(scope="module")
def plain_server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    """Yield a server for tests that only look at its answers."""
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


def idle(server: ScriptedServer) -> bool:
    """Whether no request holds anything any more."""
    admission = server.service.admission
    left = (
        admission.in_flight + admission.queued_candidates + admission.queued_tokens + server.service.lifecycle.requests
    )
    with server.http as http:
        metrics = http.get("/metrics").text
    return left == 0 and "winnow_candidates_in_flight 0.0" in metrics


def stream(server: ScriptedServer, path: str = "/v1/chat/completions", **fields: Any) -> list[str]:
    with server.http as http, http.stream("POST", path, json=question("Hello", stream=True, **fields)) as response:
        assert response.status_code == 200, response.read()
        return response.read().decode().strip().split("\n\n")


def chunks(parts: list[str]) -> list[dict[str, Any]]:
    return [json.loads(part.removeprefix("data: ")) for part in parts if part.startswith("data: {")]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("model", ["safety", "helpfulness"])
def test_a_candidate_without_a_score_cannot_win(tokenizer: Tokenizer, score: float, model: str) -> None:
    """A candidate without a finite score is left out; if there is no other, the answer is an error and never a NaN."""
    one_bad = ScriptedRewardModel(logit=lambda ids: score if ids[-1] == 3 else SAFE)
    with ScriptedServer.start(scripted(tokenizer, **{model: one_bad})) as server:
        body = server.chat(best_of=4).json()
        assert [failure["index"] for failure in body["best_of_n"]["failed"]] == [3]
        assert body["best_of_n"]["finished"] == 3
        assert body["best_of_n"]["winner"] != 3
        one_bad.logit = lambda ids: score
        for response in (server.chat(best_of=4), server.chat(best_of=1)):
            assert response.status_code == 500
            assert response.headers["x-should-retry"] == "false"
            assert response.json()["error"]["code"] == "no_scored_candidate"
        parts = stream(server)
        assert "NaN" not in "".join(parts)
        assert chunks(parts)[-1]["error"]["code"] == "no_scored_candidate"
        assert parts[-1] == "data: [DONE]"
        assert wait_until(lambda: idle(server), 5)


def test_a_constant_reward_model_lets_the_lowest_index_win(tokenizer: Tokenizer) -> None:
    constant = ScriptedRewardModel(logit=lambda ids: SAFE)
    with ScriptedServer.start(scripted(tokenizer, safety=constant, helpfulness=constant)) as server:
        assert server.chat(best_of=8).json()["best_of_n"]["winner"] == 0


def test_failed_candidates_are_listed_and_the_others_compete(tokenizer: Tokenizer) -> None:
    def answers(index: int) -> tuple[int, ...]:
        if index % 2:
            raise CandidateFailed("the policy engine failed on a request")
        return (7, index)

    policy = ScriptedPolicy(answers=answers)
    with ScriptedServer.start(scripted(tokenizer, policy)) as server:
        report = server.chat(best_of=6, n=3).json()["best_of_n"]
        assert [failure["index"] for failure in report["failed"]] == [1, 3, 5]
        assert [item["index"] for item in report["scored"]] == [0, 2, 4]


@pytest.mark.parametrize("combiner", ["llama2", "safe_first"])
@pytest.mark.parametrize("what", ["return", "refuse"])
def test_every_candidate_is_unsafe(tokenizer: Tokenizer, what: str, combiner: str) -> None:
    gated = ScriptedRewardModel(logit=lambda ids: GATED)
    settings = {"when_all_unsafe": what, "refusal": "No.", "combiner": combiner}
    with ScriptedServer.start(scripted(tokenizer, safety=gated, **settings)) as server:
        body = server.chat(best_of=4, n=2, logprobs=True, best_of_n={"return_candidates": True}).json()
        assert body["best_of_n"]["all_unsafe"] is True
        assert body["best_of_n"]["safe_passed_over"] is False
        ends = [choice["finish_reason"] for choice in body["choices"]]
        texts = [choice["message"]["content"] for choice in body["choices"]]
        if what == "refuse":
            assert (texts, ends) == (["No."] * 2, ["content_filter"] * 2)
            assert all("text" not in item for item in body["best_of_n"]["scored"])
        else:
            assert (len(set(texts)), ends) == (2, ["stop"] * 2)
        last = [chunk for chunk in chunks(stream(server)) if chunk["choices"]][-1]
        assert last["choices"][0]["finish_reason"] == ends[0]
        assert last["best_of_n"]["all_unsafe"] is True
        with server.http as http:
            assert "winnow_selections_all_unsafe_total 2.0" in http.get("/metrics").text


def test_an_unsafe_winner_over_a_safe_candidate_is_flagged(tokenizer: Tokenizer) -> None:
    """The paper's formula lets R_s = 0.14 beat R_h = 0.10; the response must say so."""
    safety = ScriptedRewardModel(logit=lambda ids: math.log(0.14 / 0.86) if ids[-1] == 1 else SAFE)
    helpfulness = ScriptedRewardModel(logit=lambda ids: math.log(0.10 / 0.90))
    with ScriptedServer.start(scripted(tokenizer, safety=safety, helpfulness=helpfulness)) as server:
        report = server.chat(best_of=4).json()["best_of_n"]
        assert (report["winner"], report["all_unsafe"], report["safe_passed_over"]) == (1, False, True)
        report = server.chat(best_of_n={"candidates": 4, "combiner": "safe_first"}).json()["best_of_n"]
        assert (report["winner"], report["safe_passed_over"]) == (0, False)


def test_progress_is_sent_if_requested(tokenizer: Tokenizer) -> None:
    hold = asyncio.Event()
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(hold=hold))) as server:
        server.call(lambda: server.loop.call_later(0.2, hold.set))
        parts = stream(server, best_of_n={"candidates": 8, "progress": True}, stream_options={"include_usage": True})
        told = chunks(parts)
        progress = [chunk["best_of_n"]["progress"] for chunk in told if "progress" in chunk.get("best_of_n", {})]
        assert progress
        assert all(chunk["choices"] == [] for chunk in told if "progress" in chunk.get("best_of_n", {}))
        assert progress[-1]["scored"] == progress[-1]["finished"] == progress[-1]["candidates"] == 8
        best = max(item["combined"] for chunk in told for item in chunk.get("best_of_n", {}).get("scored", []))
        assert progress[-1]["best_so_far"] == pytest.approx(best)
        assert len({chunk["id"] for chunk in told}) == 1
        assert parts.count("data: [DONE]") == 1
        assert parts[-1] == "data: [DONE]"
        refused = server.chat(best_of_n={"progress": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "best_of_n.progress")


def test_a_silent_stream_sends_comments(tokenizer: Tokenizer) -> None:
    hold = asyncio.Event()
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(hold=hold), keep_alive_seconds=0.05)) as server:
        server.call(lambda: server.loop.call_later(0.4, hold.set))
        parts = stream(server)
        comments = [number for number, part in enumerate(parts) if part.startswith(":")]
        assert len(comments) >= 2
        assert min(comments) > 0
        ends = [choice["finish_reason"] for chunk in chunks(parts) for choice in chunk["choices"]]
        assert [end for end in ends if end] == ["stop"]


def test_a_full_queue_refuses_at_once_and_accepted_requests_are_answered(tokenizer: Tokenizer) -> None:
    hold = asyncio.Event()
    limits = {"max_candidates_in_flight": 16, "max_queued_candidates": 16, "max_candidates": 16}
    policy = ScriptedPolicy(hold=hold)
    with ScriptedServer.start(scripted(tokenizer, policy, **limits)) as server, ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(server.chat, best_of=16) for _ in range(2)]
        assert wait_until(lambda: server.service.admission.queued_candidates == 16, 10)
        assert len(policy.running) == 16
        for path in ("/v1/chat/completions", "/v1/rewards"):
            refused = [server.chat(best_of=1), server.chat(best_of=16), server.chat(best_of=1, stream=True)]
            with server.http as http:
                body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "x"}], "answers": ["y"]}
                refused.append(http.post("/v1/rewards", json=body))
            for response in refused:
                assert response.status_code == 429, path
                assert 1 <= int(response.headers["retry-after"]) <= 60
                assert ErrorBody.model_validate(response.json()).error.code == "overloaded"
        assert len(policy.running) == 16
        server.call(hold.set)
        assert [future.result().status_code for future in accepted] == [200, 200]
        queued = sorted(future.result().json()["best_of_n"]["timings_ms"]["queue"] for future in accepted)
        assert queued[1] > queued[0]
        assert wait_until(lambda: idle(server), 5)


def leave(server: ScriptedServer, *, stream: bool) -> None:
    """Send a request and disconnect without reading a byte."""
    body = json.dumps(question("Hello", best_of=8, stream=stream)).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"Host: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode() + body)
        assert wait_until(lambda: server.service.lifecycle.requests > 0, 10)


@pytest.mark.parametrize("stage", ["generating", "scoring", "queued"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_disconnect_cancels_every_candidate(tokenizer: Tokenizer, stage: str, streamed: bool) -> None:
    hold = asyncio.Event()
    policy = ScriptedPolicy(hold=None if stage == "scoring" else hold)
    safety = ScriptedRewardModel(hold=hold if stage == "scoring" else None)
    limits = {"max_candidates_in_flight": 8, "max_candidates": 8, "candidates": 8}
    with ScriptedServer.start(scripted(tokenizer, policy, safety, **limits)) as server:
        if stage == "queued":
            ticket = server.service.admission.enter("another", 8, 0)
        for _ in range(5):
            leave(server, stream=streamed)
            assert wait_until(lambda: not policy.running and server.service.lifecycle.requests == 0, 5)
        if stage == "queued":
            server.call(ticket.leave)
        assert wait_until(lambda: idle(server), 5)
        server.call(hold.set)
        assert server.chat().status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_over_the_time_limit_is_cancelled(tokenizer: Tokenizer, streamed: bool) -> None:
    policy = ScriptedPolicy(hold=asyncio.Event())
    with ScriptedServer.start(scripted(tokenizer, policy, request_seconds=0.2)) as server:
        if streamed:
            assert chunks(stream(server))[-1]["error"]["code"] == "deadline_exceeded"
        else:
            response = server.chat()
            assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert wait_until(lambda: not policy.running and idle(server), 5)


@pytest.mark.parametrize(
    ("error", "code"), [(EngineDead("the safety engine hangs"), "engine_dead"), (ShuttingDown("now"), "shutting_down")]
)
def test_requests_in_flight_fail_when_the_lifecycle_ends(tokenizer: Tokenizer, error: Exception, code: str) -> None:
    policy = ScriptedPolicy(hold=asyncio.Event())
    with ScriptedServer.start(scripted(tokenizer, policy)) as server, ThreadPoolExecutor(4) as pool:
        plain, streamed = pool.submit(server.chat), pool.submit(stream, server)
        assert wait_until(lambda: len(policy.running) == 16 and server.service.lifecycle.requests == 2, 10)
        server.call(lambda: server.service.lifecycle.end(error))
        assert (plain.result().status_code, plain.result().json()["error"]["code"]) == (503, code)
        assert chunks(streamed.result())[-1]["error"]["code"] == code
        assert server.chat().status_code == 503
        with server.http as http:
            assert http.get("/health").status_code == (503 if code == "engine_dead" else 200)


def test_a_draining_server_finishes_its_requests_and_takes_no_new_ones(tokenizer: Tokenizer) -> None:
    hold = asyncio.Event()
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(hold=hold))) as server, ThreadPoolExecutor(2) as pool:
        taken = pool.submit(server.chat)
        assert wait_until(lambda: server.service.lifecycle.requests == 1, 10)
        drained = asyncio.run_coroutine_threadsafe(server.service.lifecycle.drain(30), server.loop)
        with server.http as http:
            assert wait_until(lambda: http.get("/ready").status_code == 503, 5)
            assert http.get("/health").status_code == 200
        late = server.chat()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        assert not drained.done()
        server.call(hold.set)
        assert taken.result().status_code == 200
        drained.result(10)


def test_a_slow_reader_neither_grows_memory_nor_holds_a_place(tokenizer: Tokenizer) -> None:
    body = question("Hello", stream=True)
    with (
        ScriptedServer.start(scripted(tokenizer)) as server,
        server.http as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        assert wait_until(lambda: server.service.admission.in_flight == 0, 10)
        assert server.chat().status_code == 200


def test_a_body_over_the_limit_is_refused_without_being_read(tokenizer: Tokenizer) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield b" " * 10_000

    with ScriptedServer.start(scripted(tokenizer, max_body_bytes=100_000)) as server, server.http as http:
        room = 100_000 - len(json.dumps(question("")))
        at_limit = json.dumps(question("x" * room))
        assert len(at_limit) == 100_000
        kind = {"content-type": "application/json"}
        response = http.post("/v1/chat/completions", content=at_limit, headers=kind)
        assert response.json()["error"]["code"] == "context_length_exceeded"
        assert http.post("/v1/chat/completions", content=at_limit + " ", headers=kind).status_code == 413
        assert http.post("/v1/chat/completions", content=endless(), headers=kind).status_code == 413
        assert sent < 40_000_000
        assert server.chat().status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=application/json"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "Application/JSON;charset=utf-8"}, 200),
        ({"content-type": "application/vnd.api+json"}, 200),
    ],
)
def test_content_types_and_encodings(plain_server: ScriptedServer, headers: dict[str, str], status: int) -> None:
    kind = {"content-type": "application/json", **headers}
    with plain_server.http as http:
        answer = http.post("/v1/chat/completions", content=json.dumps(question("Hello")), headers=kind)
    assert answer.status_code == status


def test_accept_any_model(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer, accept_any_model=True)) as server:
        body = ChatCompletion.model_validate(server.chat(model="gpt-4o").json())
        assert body.model == "winnow-demo"


async def test_hundreds_of_disconnects_leave_nothing_running(tokenizer: Tokenizer) -> None:
    policy = ScriptedPolicy(hold=asyncio.Event())
    with ScriptedServer.start(scripted(tokenizer, policy, max_queued_candidates=0)) as server:
        tasks = len(asyncio.all_tasks(server.loop))
        body = question("Hello", stream=True)
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, limits=limits, timeout=30) as http:

            async def visit(number: int) -> None:
                async with http.stream(
                    "POST", "/v1/chat/completions", json={**body, "best_of": 1 + number % 8}
                ) as reply:
                    assert reply.status_code in (200, 429)

            for _ in range(3):
                await asyncio.gather(*(visit(number) for number in range(100)))
        assert wait_until(lambda: not policy.running and idle(server), 10)
        assert wait_until(lambda: len(asyncio.all_tasks(server.loop)) <= tasks + 1, 10)


def test_a_stream_finishes_every_choice_that_it_opens(tokenizer: Tokenizer) -> None:
    """Regression: of three requested choices one could be scored; the other two were opened and never finished."""

    def answers(index: int) -> tuple[int, ...]:
        if index:
            raise CandidateFailed("the policy engine failed on a request")
        return (7, index)

    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(answers=answers))) as server:
        for path, extra in (("/v1/chat/completions", {}), ("/v1/completions", {"prompt": "x", "messages": None})):
            body = {name: value for name, value in {"n": 3, "best_of": 3, **extra}.items() if value is not None}
            if path == "/v1/completions":
                with server.http as http:
                    posted = http.post(path, json={"model": "winnow-demo", "stream": True, **body})
                parts = posted.text.strip().split("\n\n")
            else:
                parts = stream(server, path, **body)
            choices = [choice for chunk in chunks(parts) for choice in chunk["choices"]]
            assert {choice["index"] for choice in choices} == {0}
            assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]


def test_a_score_that_is_no_longer_needed_is_cancelled(tokenizer: Tokenizer) -> None:
    """Regression: one reward model failed, the request was answered, and the other went on scoring."""

    def fails(_: object) -> float:
        raise CandidateFailed("no score")

    helpfulness = ScriptedRewardModel(hold=asyncio.Event())
    with ScriptedServer.start(
        scripted(tokenizer, safety=ScriptedRewardModel(logit=fails), helpfulness=helpfulness)
    ) as server:
        before = len(asyncio.all_tasks(server.loop))
        assert server.chat(best_of=4).status_code == 500
        assert wait_until(lambda: len(asyncio.all_tasks(server.loop)) <= before, 5)


def test_a_dead_engine_is_the_root_cause_of_other_failures(tokenizer: Tokenizer) -> None:
    def fails(ids: tuple[int, ...]) -> float:
        raise EngineDead("the safety engine is gone") if len(ids) > 1 else CandidateFailed("no score")

    policy, safety = ScriptedPolicy(answers=lambda index: (7, index)), ScriptedRewardModel(logit=fails)
    with ScriptedServer.start(scripted(tokenizer, policy, safety)) as server, server.http as http:
        body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "x"}], "answers": ["", "y", "y z"]}
        assert http.post("/v1/rewards", json=body).json()["error"]["code"] == "engine_dead"
        assert server.chat(best_of=4).json()["error"]["code"] == "engine_dead"


def test_rewards_score_at_most_as_many_answers_at_once_as_they_have_places(tokenizer: Tokenizer) -> None:
    running = most = 0

    class Counting(ScriptedRewardModel):
        async def score(self, prompt: Any, answer: str) -> float:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return 0.0

    limits = {"max_candidates_in_flight": 8, "max_candidates": 8, "candidates": 8}
    with ScriptedServer.start(scripted(tokenizer, safety=Counting(), **limits)) as server, server.http as http:
        body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "x"}], "answers": ["y"] * 100}
        assert len(http.post("/v1/rewards", json={**body, "is_safety": True}).json()["rewards"]) == 100
    assert most == 8


def test_a_list_of_too_many_elements_is_refused(plain_server: ScriptedServer) -> None:
    with plain_server.http as http:
        response = http.post("/detokenize", json={"tokens": [1] * 100_001})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
        assert "elements" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"5"])
def test_a_body_that_is_no_object_is_told_so(plain_server: ScriptedServer, body: bytes) -> None:
    """Regression: an empty body and null were answered with "the body: Field required"."""
    with plain_server.http as http:
        response = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.json()["error"]["message"] == "the body: Input should be an object"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/rewards", "/tokenize", "/detokenize"])
def test_a_body_needs_one_content_type(plain_server: ScriptedServer, path: str) -> None:
    """Regression: a web page of any site could post a body without a type, which is parsed as JSON."""
    json_type = ("content-type", "application/json")
    with plain_server.http as http:
        for headers in ([], [("content-type", "text/x+json")], [("content-type", "")], [json_type, json_type]):
            answer = http.post(path, content=json.dumps(question("Hello")).encode(), headers=headers)
            assert answer.status_code == 415, headers
            assert "application/json" in ErrorBody.model_validate_json(answer.content).error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"safety_identifier": None, "prompt_cache_key": None, "prompt_cache_retention": None},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"store": False, "metadata": {}, "service_tier": "auto"},
    ],
)
def test_fields_that_ask_for_nothing_are_ignored(plain_server: ScriptedServer, fields: dict[str, Any]) -> None:
    assert plain_server.chat(**fields).status_code == 200
    with plain_server.http as http:
        assert http.post("/v1/completions", json={"model": "winnow-demo", "prompt": "x", **fields}).status_code == 200


def test_errors_of_cancelled_requests_are_not_logged(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    """Regression: asyncio logged the tracebacks of tasks that were cancelled and then failed."""

    class Bitter(ScriptedPolicy):
        async def sample(self, *arguments: Any) -> Any:
            try:
                return await super().sample(*arguments)
            except asyncio.CancelledError:
                raise EngineDead("the policy engine is gone") from None

    policy = Bitter(hold=asyncio.Event())
    with ScriptedServer.start(scripted(tokenizer, policy)) as server, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.chat), pool.submit(stream, server)]
        assert wait_until(lambda: server.service.lifecycle.requests == 2, 10)
        server.call(lambda: server.service.lifecycle.end(EngineDead("over")))
        assert asked[0].result().status_code == 503
        asked[1].result()
        gc.collect()
    assert "Traceback" not in caplog.text
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions", "/v1/completions", "/v1/rewards"])
def test_a_long_text_does_not_block_other_requests(tokenizer: Tokenizer, path: str) -> None:
    """Tokenising a megabyte takes most of a second; others must be served meanwhile."""
    begun, go_on = threading.Event(), threading.Event()

    def wait_if_long(text: str) -> None:
        if len(text) > LONG_TEXT:
            begun.set()
            assert go_on.wait(30)

    text = "- " + "plum " * 4001
    dialog = [{"role": "user", "content": text}]
    bodies: dict[str, dict[str, Any]] = {
        "/tokenize": {"prompt": text},
        "/v1/chat/completions": {"model": "winnow-demo", "messages": dialog},
        "/v1/completions": {"model": "winnow-demo", "prompt": text},
        "/v1/rewards": {"model": "winnow-demo", "messages": dialog, "answers": ["x"]},
    }
    context = {"policy": 32_000, "safety": 33_000, "helpfulness": 33_000}
    engines = {
        name: (ScriptedPolicy if name == "policy" else ScriptedRewardModel)(context=size)
        for name, size in context.items()
    }
    slow = ScriptedServer.start(scripted(WatchedTokenizer(tokenizer, wait_if_long), **engines))
    with slow as server, ThreadPoolExecutor(1) as pool, server.http as http:
        asked = pool.submit(http.post, path, json=bodies[path])
        assert begun.wait(10)
        assert http.get("/health").status_code == 200
        go_on.set()
        assert asked.result().status_code == 200


def test_a_text_that_cannot_fit_is_not_tokenised(tokenizer: Tokenizer) -> None:
    def refuse_long(text: str) -> None:
        assert len(text) < LONG_TEXT

    with ScriptedServer.start(scripted(WatchedTokenizer(tokenizer, refuse_long))) as server:
        response = server.chat("word " * 390_000)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
