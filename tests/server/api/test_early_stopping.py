"""Early stopping over HTTP: deadlines, accepted rewards, early rejection, and K under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fakes import ScriptedPolicy
from tests.live import LiveServer, ScriptedServer, scripted, wait_until
from winnow.models.tokenizer import Tokenizer

NO_EOS = {"logit_bias": {"2": -100}}


@pytest.fixture(scope="module")
def plain_server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    """Yield a server for tests that only look at its answers."""
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


def engines_are_idle(server: LiveServer) -> bool:
    with server.http as http:
        lines = http.get("/metrics").text.splitlines()
    return all(line.endswith(" 0.0") for line in lines if line.startswith("winnow_engine_requests{"))


@pytest.mark.engine
@pytest.mark.parametrize(
    "options",
    [
        {"deadline_ms": 1},
        {"deadline_ms": 150},
        {"accept_reward": 0.0},
        {"early_rejection": {"at_tokens": [4, 16, 64], "keep": 0.4}},
        {"early_rejection": {"at_tokens": [1]}, "accept_reward": 0.5, "deadline_ms": 2000},
    ],
)
def test_early_stopping_leaves_no_candidate_running(server: LiveServer, options: dict[str, Any]) -> None:
    answer = server.chat(max_tokens=120, seed=1, best_of_n={"candidates": 12, **options}, **NO_EOS)
    assert answer.status_code == 200, answer.text
    report = answer.json()["best_of_n"]
    assert report["candidates"] == report["requested"] == 12
    assert report["finished"] + len(report["failed"]) + len(report["aborted"]) == 12
    assert {item["index"] for item in (*report["scored"], *report["aborted"])} == set(range(12))
    tokens = sum(item["tokens"] for item in (*report["scored"], *report["aborted"]))
    assert answer.json()["usage"]["completion_tokens"] == tokens
    assert report["approximate"] == any(item["reason"] == "early_rejection" for item in report["aborted"])
    assert any(item["index"] == report["winner"] and item["rank"] == 0 for item in report["scored"])
    assert wait_until(lambda: engines_are_idle(server), 1)


@pytest.mark.engine
def test_a_streamed_request_stops_early_too(server: LiveServer) -> None:
    body = {
        "model": "winnow-demo",
        "messages": [{"role": "user", "content": "Name three fruits."}],
        "stream": True,
        "best_of_n": {"candidates": 8, "accept_reward": 0.0, "progress": True},
    }
    with server.http as http:
        text = http.post("/v1/chat/completions", json=body).text
    assert '"truncated_by":"accept_reward"' in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"deadline_ms": 0}, "best_of_n.deadline_ms"),
        ({"deadline_ms": -1}, "best_of_n.deadline_ms"),
        ({"deadline_ms": 1e12}, "best_of_n.deadline_ms"),
        ({"deadline_ms": "100"}, "best_of_n.deadline_ms"),
        ({"deadline_ms": True}, "best_of_n.deadline_ms"),
        ({"accept_reward": 1.5}, "best_of_n.accept_reward"),
        ({"accept_reward": -0.1}, "best_of_n.accept_reward"),
        ({"accept_reward": "high"}, "best_of_n.accept_reward"),
        ({"early_rejection": {}}, "best_of_n.early_rejection.at_tokens"),
        ({"early_rejection": True}, "best_of_n.early_rejection"),
        ({"early_rejection": {"at_tokens": []}}, "best_of_n.early_rejection.at_tokens"),
        ({"early_rejection": {"at_tokens": [0]}}, "best_of_n.early_rejection.at_tokens[0]"),
        ({"early_rejection": {"at_tokens": [8, 8]}}, "best_of_n.early_rejection.at_tokens"),
        ({"early_rejection": {"at_tokens": [16, 8]}}, "best_of_n.early_rejection.at_tokens"),
        ({"early_rejection": {"at_tokens": [4], "keep": 0}}, "best_of_n.early_rejection.keep"),
        ({"early_rejection": {"at_tokens": [4], "keep": 1}}, "best_of_n.early_rejection.keep"),
        ({"early_rejection": {"at_tokens": list(range(1, 18))}}, "best_of_n.early_rejection.at_tokens"),
        ({"candidates": {"min": 1}}, "best_of_n.candidates.max"),
        ({"candidates": {"min": 4, "max": 2}}, "best_of_n.candidates.min"),
        ({"candidates": {"min": 0, "max": 2}}, "best_of_n.candidates.min"),
        ({"candidates": {"min": 1, "max": 65}}, "best_of_n.candidates"),
        ({"candidates": [1, 2]}, "best_of_n.candidates"),
        ({"candidates": "8"}, "best_of_n.candidates"),
        ({"candidates": 1.5}, "best_of_n.candidates"),
        ({"candidates": True}, "best_of_n.candidates"),
    ],
)
def test_impossible_options_are_refused(plain_server: ScriptedServer, options: dict[str, Any], param: str) -> None:
    answer = plain_server.chat(best_of_n=options)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_null_asks_for_nothing(plain_server: ScriptedServer) -> None:
    options = dict.fromkeys(("deadline_ms", "accept_reward", "early_rejection", "candidates"))
    report = plain_server.chat(best_of_n=options).json()["best_of_n"]
    assert (report["candidates"], report["truncated_by"], report["aborted"]) == (16, None, [])


def shrunk(server: ScriptedServer, requests: int, **fields: Any) -> list[dict[str, Any]]:
    """Return the reports of requests that are in flight together, the largest K first."""
    policy = server.service.policy
    assert isinstance(policy, ScriptedPolicy)
    hold = policy.hold = asyncio.Event()
    with ThreadPoolExecutor(requests) as pool:
        answers = [pool.submit(server.chat, **fields) for _ in range(requests)]
        assert wait_until(lambda: server.service.lifecycle.requests == requests, 10)
        server.call(hold.set)
        reports = [answer.result(20).json()["best_of_n"] for answer in answers]
    return sorted(reports, key=lambda report: -report["candidates"])


def test_k_shrinks_under_load_and_grows_back(tokenizer: Tokenizer) -> None:
    limits = {"max_candidates_in_flight": 32, "max_candidates": 16, "candidates": "2-16"}
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(), **limits)) as server:
        reports = shrunk(server, 6)
        assert reports[0]["candidates"] == 16
        assert reports[0]["reduced_by"] is None
        assert reports[-1]["candidates"] < 8
        assert all(report["requested"] == 16 for report in reports)
        assert all(report["reduced_by"] == "load" for report in reports if report["candidates"] < 16)
        assert server.chat().json()["best_of_n"]["candidates"] == 16
        with server.http as http:
            assert 'winnow_selection_candidates_count{reduced_by="load"}' in http.get("/metrics").text


def test_the_range_of_a_request_is_honoured(tokenizer: Tokenizer) -> None:
    limits = {"max_candidates_in_flight": 64, "max_candidates": 16, "candidates": "2-16"}
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(), **limits)) as server:
        exact = shrunk(server, 6, best_of_n={"candidates": {"min": 10, "max": 10}})
        assert {report["candidates"] for report in exact} == {10}
        own = shrunk(server, 6, best_of_n={"candidates": {"min": 7, "max": 16}})
        assert 7 <= own[-1]["candidates"] < 16
        n = shrunk(server, 6, n=5, best_of_n={"candidates": 12})
        assert 5 <= n[-1]["candidates"] < 12


def test_without_a_range_k_does_not_shrink(tokenizer: Tokenizer) -> None:
    limits = {"max_candidates_in_flight": 32, "max_candidates": 16}
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(), **limits)) as server:
        assert {report["candidates"] for report in shrunk(server, 6)} == {16}


def test_a_deadline_counts_from_the_requests_arrival(tokenizer: Tokenizer) -> None:
    """Waiting in the queue counts; a request admitted after its deadline gets a single candidate."""
    limits = {"max_candidates_in_flight": 8, "max_candidates": 8, "candidates": 8}
    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(), **limits)) as server:
        others = [server.service.admission.enter("another", 1, 0) for _ in range(8)]
        with ThreadPoolExecutor(1) as pool:
            started = time.monotonic()
            waiting = pool.submit(server.chat, best_of_n={"deadline_ms": 200})
            assert wait_until(lambda: time.monotonic() - started > 0.3, 5)
            server.call(others[0].leave)  # one place will do
            report = waiting.result(10).json()["best_of_n"]
        assert (report["candidates"], report["requested"], report["reduced_by"]) == (1, 8, "deadline")
        assert report["truncated_by"] == "deadline"
