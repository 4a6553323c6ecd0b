"""Adaptive K on the wire: what is drawn, what the answer says of it, and what is refused."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ScriptedRewardModel
from tests.live import LiveServer, ScriptedServer, scripted, wait_until
from winnow.clients import Client
from winnow.models.gains import GainTable, Trace
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import logit
from winnow.server.served_gains import ServedGains

REWARDS = (0.2, 0.3, 0.5, 0.4, 0.95, 0.6, 0.7, 0.1, 0.97, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2)
"""R_c of the scripted candidates."""


def adaptive(**stop: float) -> dict[str, Any]:
    return {"start": 2, "step": 2, "stop": stop}


def rewarding(tokenizer: Tokenizer, **settings: Any) -> ScriptedServer:
    helpfulness = ScriptedRewardModel(lambda ids: logit(REWARDS[ids[0]]))
    return scripted(tokenizer, safety=ScriptedRewardModel(lambda ids: 3.0), helpfulness=helpfulness, **settings)


@pytest.fixture(scope="module")
def plain(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    """Yield a server that draws K at once, unless a request says otherwise."""
    with ScriptedServer.start(rewarding(tokenizer)) as running:
        yield running


@pytest.fixture(scope="module")
def saving(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    """Yield a server that draws in waves, unless a request says otherwise."""
    with ScriptedServer.start(rewarding(tokenizer, adaptive="reward=0.9,start=2,step=2")) as running:
        yield running


def report_of(server: ScriptedServer, *, status: int = 200, **best_of_n: Any) -> dict[str, Any]:
    answer = server.chat(best_of_n=best_of_n)
    assert answer.status_code == status, answer.text
    return answer.json()["best_of_n"] if status == 200 else answer.json()["error"]


@pytest.mark.parametrize(
    ("reward", "k", "waves", "stopped_by"),
    [(0.25, 2, 1, "reward"), (0.9, 6, 3, "reward"), (0.96, 10, 5, "reward"), (0.99, 16, 8, "candidates")],
)
def test_an_answer_is_the_exact_best_of_k_and_says_what_it_saved(
    plain: ScriptedServer, reward: float, k: int, waves: int, stopped_by: str
) -> None:
    report = report_of(plain, adaptive=adaptive(reward=reward))
    assert (report["candidates"], report["requested"]) == (k, 16)
    assert (report["waves"], report["stopped_by"], report["requested_tokens"]) == (waves, stopped_by, 32)
    assert report["winner"] == max(range(k), key=lambda index: REWARDS[index])
    assert [item["index"] for item in report["scored"]] == list(range(k))
    assert {item["reason"] for item in report["aborted"]} <= {"adaptive"}
    assert report["reduced_by"] is None
    assert "gains" not in report


def test_without_waves_the_report_has_none(plain: ScriptedServer) -> None:
    report = report_of(plain)
    assert report["candidates"] == 16
    assert not {"waves", "stopped_by", "requested_tokens", "gains"} & report.keys()


def test_a_server_may_draw_in_waves_by_default(saving: ScriptedServer) -> None:
    assert report_of(saving)["candidates"] == 6
    assert report_of(saving, adaptive=None)["candidates"] == 6
    assert report_of(saving, adaptive=adaptive(reward=0.96))["candidates"] == 10
    exact = report_of(saving, adaptive=False)
    assert (exact["candidates"], "waves" in exact) == (16, False)
    early = report_of(saving, early_rejection={"at_tokens": [100]})
    assert (early["candidates"], "waves" in early) == (16, False)
    with saving.http as http:
        told = http.get("/version").json()
    assert told["adaptive"] == {"start": 2, "step": 2, "reward": 0.9, "gain": None}
    assert told["gains"] is None


@pytest.mark.parametrize(("least", "n", "k"), [(1, 1, 2), (4, 1, 4), (1, 3, 3)])
def test_no_stop_comes_before_min_and_n(plain: ScriptedServer, least: int, n: int, k: int) -> None:
    body = {"candidates": {"min": least, "max": 16}, "adaptive": adaptive(reward=0.01)}
    answer = plain.chat(n=n, best_of_n=body).json()
    assert answer["best_of_n"]["candidates"] == k
    assert len(answer["choices"]) == n


def test_completions_have_it_too(plain: ScriptedServer) -> None:
    with plain.http as http:
        body = {"model": "winnow-demo", "prompt": "Once", "best_of_n": {"adaptive": adaptive(reward=0.9)}}
        assert http.post("/v1/completions", json=body).json()["best_of_n"]["candidates"] == 6


def test_a_stream_counts_the_candidates_that_are_known_to_be_needed(plain: ScriptedServer) -> None:
    with Client(f"{plain.url}/v1") as client:
        events = list(client.stream("Hello!", adaptive=adaptive(reward=0.9), progress=True))
    counts = [event.candidates for event in events if hasattr(event, "best_so_far")]
    assert counts == sorted(counts)
    assert counts[-1] == 6
    report = events[-1].report  # type: ignore[union-attr]
    assert (report.candidates, report.stopped_by, report.waves) == (6, "reward", 3)


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"start": 2}, "best_of_n.adaptive.stop", "required"),
        ({"stop": {}}, "best_of_n.adaptive.stop", "one of reward and gain"),
        ({"stop": {"reward": 0.9, "gain": 0.1}}, "best_of_n.adaptive.stop", "one of reward and gain"),
        ({"stop": {"reward": 0}}, "best_of_n.adaptive.stop.reward", "greater than 0"),
        ({"stop": {"reward": 1.1}}, "best_of_n.adaptive.stop.reward", "less than or equal to 1"),
        ({"stop": {"gain": 1}}, "best_of_n.adaptive.stop.gain", "less than 1"),
        ({"start": 0, "stop": {"reward": 0.9}}, "best_of_n.adaptive.start", "1"),
        ({"step": "4", "stop": {"reward": 0.9}}, "best_of_n.adaptive.step", "an integer"),
        ({"until": 4, "stop": {"reward": 0.9}}, "best_of_n.adaptive.until", "not supported"),
        (True, "best_of_n.adaptive", "an object or false"),
        ({"stop": {"gain": 0.002}}, "best_of_n.adaptive.stop.gain", "--gains FILE"),
    ],
)
def test_a_request_that_is_wrong_is_told_what_to_change(
    plain: ScriptedServer, options: Any, param: str, says: str
) -> None:
    error = report_of(plain, status=400, adaptive=options)
    assert error["param"] == param
    assert says in error["message"]


def test_early_rejection_is_refused_beside_it(plain: ScriptedServer) -> None:
    error = report_of(plain, status=400, adaptive=adaptive(reward=0.9), early_rejection={"at_tokens": [8]})
    assert "send one of the two" in error["message"]


def test_the_metrics_count_k_waves_and_what_was_saved(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(rewarding(tokenizer)) as server:
        report_of(server)
        report_of(server, adaptive=adaptive(reward=0.9))
        report_of(server, adaptive=adaptive(reward=0.99))
        with server.http as http:
            lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line[0] != "#")
    assert lines['winnow_adaptive_candidates_sum{stopped_by="reward"}'] == "6.0"
    assert lines['winnow_adaptive_candidates_count{stopped_by="candidates"}'] == "1.0"
    assert lines["winnow_adaptive_waves_sum"] == "11.0"
    assert lines["winnow_adaptive_candidates_saved_total"] == "10.0"
    assert lines["winnow_candidates_in_flight"] == lines["winnow_candidates_admitted"] == "0.0"
    assert lines["winnow_candidates_cancelled_total"] == "0.0"


def test_a_request_waits_for_room_for_its_first_wave_only(tokenizer: Tokenizer) -> None:
    """K = 4 would have to wait, and there is no queue."""
    service = rewarding(tokenizer, max_candidates=4, candidates=4, max_candidates_in_flight=4, max_queued_candidates=0)
    with ScriptedServer.start(service) as server:
        service.admission.enter("another", 2, 0)
        assert server.chat().status_code == 429
        report = report_of(server, adaptive=adaptive(reward=0.99))
        assert (report["candidates"], report["waves"]) == (4, 2)
        assert wait_until(lambda: service.admission.in_flight == 2, 5)


def test_with_a_full_house_a_wave_waits_and_changes_nothing(tokenizer: Tokenizer) -> None:
    service = rewarding(tokenizer, max_candidates=4, candidates=4, max_candidates_in_flight=4)
    with (
        ScriptedServer.start(service) as server,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        reports = list(pool.map(lambda _: report_of(server, adaptive=adaptive(reward=0.45)), range(32)))
        assert {(report["candidates"], report["winner"], report["reduced_by"]) for report in reports} == {(4, 2, None)}
        assert wait_until(lambda: service.admission.in_flight == 0, 5)


def table(rewards: float) -> GainTable:
    """Return a table learnt from prompts whose candidates' rewards differ by that much."""
    traces = [Trace([0.1 + rewards * (index % 8) / 8 for index in range(16)], False) for _ in range(200)]
    return GainTable.learn("models", traces, date="2026-01-01")


def test_a_gain_is_asked_of_the_table_that_the_answer_names(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "gains.json"
    table(0.8).write(path)
    gains = ServedGains.open(path, "models")
    service = replace(rewarding(tokenizer), gains=gains)
    with ScriptedServer.start(service) as server:
        cheap, dear = (report_of(server, adaptive=adaptive(gain=price)) for price in (0.000001, 0.9))
        assert (cheap["stopped_by"], dear["stopped_by"]) == ("candidates", "gain")
        assert dear["candidates"] == 2
        assert cheap["gains"] == dear["gains"] == gains.table.digest
        with server.http as http:
            told = http.get("/version").json()["gains"]
        assert told == {"digest": gains.table.digest, "prompts": 200, "date": "2026-01-01"}
        again = report_of(server, adaptive=adaptive(gain=0.9))
        assert again["gains"] == dear["gains"], "what is served changes nothing while the server lives"
        report_of(server, accept_reward=0.999)  # not cut short only because its rewards are poor: it teaches nothing
    gains.save()
    assert GainTable.read(path, "models").prompts == 203


@pytest.mark.engine
def test_a_seed_gives_the_same_k_and_winner_alone_and_under_load(server: LiveServer) -> None:
    def ask(seed: int) -> tuple[int, int, str]:
        body = {"candidates": 8, "adaptive": {"start": 2, "step": 2, "stop": {"reward": 0.6}}}
        answer = server.chat(seed=seed, max_tokens=32, best_of_n=body).json()
        report = answer["best_of_n"]
        assert report["finished"] + len(report["failed"]) == report["candidates"]
        tokens = sum(item["tokens"] for item in (*report["scored"], *report["aborted"]))
        assert answer["usage"]["completion_tokens"] == tokens
        return report["candidates"], report["winner"], json.dumps(answer["choices"][0]["message"])

    alone = [ask(seed) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == alone
