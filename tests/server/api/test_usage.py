"""The response says what was sampled and what was returned: the reduced K at temperature 0, and the tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        yield running


def streamed(server: ScriptedServer, **fields: Any) -> list[dict[str, Any]]:
    text = server.chat(stream=True, stream_options={"include_usage": True}, **fields).text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def reports(server: ScriptedServer, **fields: Any) -> list[dict[str, Any]]:
    """Return the report of a whole answer and that of a stream."""
    chunks = [chunk for chunk in streamed(server, **fields) if chunk.get("best_of_n")]
    return [server.chat(**fields).json()["best_of_n"], chunks[-1]["best_of_n"]]


@pytest.mark.parametrize(
    ("fields", "requested", "candidates", "reduced_by"),
    [
        ({"temperature": 0}, 16, 1, "temperature"),
        ({"temperature": 0.0, "n": 1}, 16, 1, "temperature"),
        ({"temperature": 0, "best_of": 1}, 1, 1, None),
        ({"temperature": 0, "best_of_n": {"candidates": 1}}, 1, 1, None),
        ({"temperature": 0.1}, 16, 16, None),
        ({"n": 20}, 20, 20, None),
        ({}, 16, 16, None),
    ],
)
def test_the_response_says_what_reduced_k(
    server: ScriptedServer, fields: dict[str, Any], requested: int, candidates: int, reduced_by: str | None
) -> None:
    for report in reports(server, **fields):
        assert (report["requested"], report["candidates"], report["reduced_by"]) == (requested, candidates, reduced_by)
    for stream in (False, True):
        assert server.chat(stream=stream, **fields).headers.get("x-winnow-reduced-by") == reduced_by


def test_what_reduced_k_is_in_the_metrics(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as server, server.http as http:
        server.chat(temperature=0)
        assert 'winnow_selection_candidates_count{reduced_by="temperature"} 1.0' in http.get("/metrics").text


def test_at_temperature_0_several_answers_are_refused(server: ScriptedServer) -> None:
    for fields in ({"n": 2}, {"best_of": 2}, {"n": 100}):
        error = server.chat(temperature=0, **fields).json()["error"]
        assert (error["param"], error["code"]) == ("temperature", "invalid_sampling")


def test_n_beyond_the_limit_names_n(server: ScriptedServer) -> None:
    error = server.chat(n=65).json()["error"]
    assert (error["param"], error["code"]) == ("n", "invalid_request")
    assert "64" in error["message"]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("scope", [None, "all", "winner"])
def test_usage_counts_all_candidates_or_those_that_are_returned(
    server: ScriptedServer, n: int, scope: str | None
) -> None:
    fields = {"n": n, "best_of_n": {"candidates": 5, "usage": scope}}
    body, chunks = server.chat(**fields).json(), streamed(server, **fields)
    tokens = {item["rank"]: item["tokens"] for item in body["best_of_n"]["scored"]}
    counted = [tokens[rank] for rank in range(n if scope == "winner" else 5)]
    expected = {
        "prompt_tokens": body["usage"]["prompt_tokens"],
        "completion_tokens": sum(counted),
        "total_tokens": body["usage"]["prompt_tokens"] + sum(counted),
        "completion_tokens_details": {"winner_tokens": counted[0], "other_tokens": sum(counted[1:])},
    }
    assert body["usage"] == expected
    assert chunks[-1]["usage"] == expected
    assert body["best_of_n"]["winner_tokens"] == counted[0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("include_usage", [True, False])
def test_each_chunk_has_the_usage_so_far_if_asked(server: ScriptedServer, path: str, include_usage: bool) -> None:
    """GuideLLM asks for it in every stream, and its requests were refused."""
    body: dict[str, Any] = {"model": "winnow-demo", "n": 2, "best_of_n": {"candidates": 3, "progress": True}}
    body |= {"prompt": "Hello"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "Hello"}]}
    options = {"include_usage": include_usage, "continuous_usage_stats": True}
    with server.http as http:
        text = http.post(path, json={**body, "stream": True, "stream_options": options}).text
        body["best_of_n"].pop("progress")
        expected = http.post(path, json=body).json()["usage"]
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    early = {
        "prompt_tokens": expected["prompt_tokens"],
        "completion_tokens": 0,
        "total_tokens": expected["prompt_tokens"],
    }
    finished = [index for index, chunk in enumerate(chunks) if chunk["usage"] != early]
    assert chunks[0]["usage"] == early
    assert [chunk["usage"] for chunk in chunks[finished[0] :]] == [expected] * (len(chunks) - finished[0])


def test_the_official_sdk_reads_the_parts(server: ScriptedServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="winnow-demo", messages=[{"role": "user", "content": "Hello"}], extra_body={"best_of": 4}
        )
        assert answer.usage
        details = answer.usage.completion_tokens_details
        assert details
        assert details.accepted_prediction_tokens is None
        assert details.reasoning_tokens is None
        extra = details.model_extra
        assert extra
        assert extra["winner_tokens"] + extra["other_tokens"] == answer.usage.completion_tokens


def test_an_unknown_scope_is_refused(server: ScriptedServer) -> None:
    error = server.chat(best_of_n={"usage": "returned"}).json()["error"]
    assert (error["param"], error["code"]) == ("best_of_n.usage", "invalid_request")
