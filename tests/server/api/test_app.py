"""The endpoints, over real HTTP, on the real engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.live import LiveServer, wait_until
from winnow.clients.schema import ChatCompletion, ErrorBody, Rewards

pytestmark = pytest.mark.engine


def argmax(scored: list[dict[str, Any]], is_safety: bool) -> int:
    """Return the winner recomputed from the scores in the response, by the paper's formula."""

    def combined(item: dict[str, Any]) -> float:
        return float(item["safety"] if is_safety or item["safety"] < 0.15 else item["helpfulness"])

    return int(max(scored, key=lambda item: (combined(item), -item["index"]))["index"])


@pytest.mark.parametrize("k", [1, 4, 16, 64])
def test_the_winner_is_the_argmax_of_k(server: LiveServer, k: int) -> None:
    response = server.chat(best_of_n={"candidates": k, "return_candidates": True}, max_tokens=48)
    assert response.status_code == 200
    body = response.json()
    report = body["best_of_n"]
    assert report["candidates"] == report["finished"] == k
    assert [item["index"] for item in report["scored"]] == list(range(k))
    assert sorted(item["rank"] for item in report["scored"]) == list(range(k))
    assert report["winner"] == argmax(report["scored"], is_safety=False)
    winner = report["scored"][report["winner"]]
    assert winner["rank"] == 0
    assert body["choices"][0]["message"] == {"role": "assistant", "content": winner["text"], "refusal": None}
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["completion_tokens"] == sum(item["tokens"] for item in report["scored"])
    assert set(report["timings_ms"]) == {"queue", "first_candidate", "generate", "score_tail", "total"}
    assert "total;dur=" in response.headers["server-timing"]
    ChatCompletion.model_validate(body)


def test_defaults(server: LiveServer) -> None:
    body = server.chat().json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "winnow-demo"
    assert len(body["choices"]) == 1
    assert body["best_of_n"]["candidates"] == 16
    assert body["best_of_n"]["combiner"] == "llama2"
    assert all("text" not in item for item in body["best_of_n"]["scored"])


def test_n_choices_are_ranked(server: LiveServer) -> None:
    body = server.chat(n=3, best_of=6, best_of_n={"return_candidates": True}).json()
    ranked = sorted(body["best_of_n"]["scored"], key=lambda item: item["rank"])
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in body["choices"]] == [item["text"] for item in ranked[:3]]


def test_a_safety_prompt_is_ranked_by_safety_alone(server: LiveServer) -> None:
    for body in (
        server.chat("How do I make a bomb?", best_of_n={"candidates": 8}).json(),
        server.chat("Name three fruits.", best_of_n={"candidates": 8, "is_safety": True}).json(),
    ):
        report = body["best_of_n"]
        assert report["is_safety"] is True
        assert {item["branch"] for item in report["scored"]} == {"safety_prompt"}
        assert {item["helpfulness"] for item in report["scored"]} == {None}
        assert report["winner"] == argmax(report["scored"], is_safety=True)
    untagged = server.chat("How do I make a bomb?", best_of_n={"candidates": 8, "is_safety": False}).json()
    assert untagged["best_of_n"]["is_safety"] is False
    assert {item["branch"] for item in untagged["best_of_n"]["scored"]} <= {"unsafe", "helpful"}


def test_safe_first_ranks_gated_candidates_last(server: LiveServer) -> None:
    report = server.chat("You are silly.", best_of_n={"candidates": 32, "combiner": "safe_first"}).json()["best_of_n"]
    assert report["combiner"] == "safe_first"
    ranked = sorted(report["scored"], key=lambda item: item["rank"])
    gated = [item["branch"] == "unsafe" for item in ranked]
    assert gated == sorted(gated)


def test_the_same_seed_gives_the_same_winner_alone_and_under_load(server: LiveServer) -> None:
    def ask(seed: int) -> str:
        fields = {"seed": seed, "best_of_n": {"candidates": 8}, "max_tokens": 32}
        return str(server.chat("Name three animals.", **fields).json()["choices"][0]["message"]["content"])

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(16) as pool:
        loaded = list(pool.map(ask, [0, 1, 2, 3] * 4))
    assert loaded == alone * 4


def test_thirty_two_clients_at_once(server: LiveServer) -> None:
    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as http:
            bodies = [
                {
                    "model": "winnow-demo",
                    "messages": [{"role": "user", "content": f"What is {number % 10} + {number % 7}?"}],
                    "best_of_n": {"candidates": 8},
                    "max_tokens": 32,
                }
                for number in range(32)
            ]
            return await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for body in bodies))

    responses = asyncio.run(run())
    assert [response.status_code for response in responses] == [200] * 32
    assert len({response.json()["id"] for response in responses}) == 32
    for response in responses:
        report = response.json()["best_of_n"]
        assert report["winner"] == argmax(report["scored"], report["is_safety"])


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 0.5, "top_k": 5, "min_p": 0.05, "temperature": 0.7},
        {"presence_penalty": 1.0, "frequency_penalty": -1.0, "logit_bias": {"300": -100, "5": 1.5}},
        {"stop": "."},
        {"stop": [".", "!"], "max_completion_tokens": 20, "user": "someone"},
        {"temperature": 0},
        {"tools": [], "response_format": {"type": "text"}, "logprobs": False, "store": None, "metadata": None},
        {"best_of_n": {"deadline_ms": None, "accept_reward": None, "return_candidates": None, "candidates": None}},
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}]}]},
        {"messages": [{"role": "user", "content": "a </s> b \u0000 \u202e 🙂"}]},
    ],
)
def test_supported_fields(server: LiveServer, fields: dict[str, Any]) -> None:
    response = server.chat(**fields)
    assert response.status_code == 200, response.text
    for stop in fields.get("stop", ()):
        assert stop not in response.json()["choices"][0]["message"]["content"]


def test_greedy_is_one_candidate_and_more_are_refused(server: LiveServer) -> None:
    assert server.chat(temperature=0).json()["best_of_n"]["candidates"] == 1
    refused = server.chat(temperature=0, best_of=4)
    assert refused.status_code == 400
    assert "temperature" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_request"),
        ({"n": "2"}, "n", "invalid_request"),
        ({"n": True}, "n", "invalid_request"),
        ({"n": 1.5}, "n", "invalid_request"),
        ({"n": 65}, "n", "invalid_request"),
        ({"n": 2, "temperature": 0}, "temperature", "invalid_sampling"),
        ({"logprobs": 0}, "logprobs", "invalid_request"),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name", "invalid_request"),
        ({"best_of": 65}, "best_of", "invalid_request"),
        ({"best_of_n": {"candidates": 10**9}}, "best_of_n.candidates", "invalid_request"),
        ({"best_of": 4, "best_of_n": {"candidates": 5}}, "best_of", "invalid_request"),
        ({"best_of_n": {"combiner": "mean"}}, "best_of_n.combiner", "invalid_request"),
        ({"best_of_n": {"deadline": 100}}, "best_of_n.deadline", "unsupported"),
        (
            {"best_of_n": {"early_rejection": {"at_tokens": [1], "at": 1}}},
            "best_of_n.early_rejection.at",
            "unsupported",
        ),
        ({"best_of_n": {"candidates": {"min": 1, "max": 2, "mean": 1}}}, "best_of_n.candidates.mean", "unsupported"),
        ({"best_of_n": {"nonsense": 1}}, "best_of_n.nonsense", "unsupported"),
        ({"temperature": -1}, "temperature", "invalid_request"),
        ({"temperature": 2.1}, "temperature", "invalid_request"),
        ({"temperature": "hot"}, "temperature", "invalid_request"),
        ({"top_p": 0}, "top_p", "invalid_request"),
        ({"seed": -2}, "seed", "invalid_request"),
        ({"seed": 2**64}, "seed", "invalid_request"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_request"),
        ({"stop": ""}, "stop", "invalid_request"),
        ({"max_tokens": 0}, "max_tokens", "invalid_request"),
        ({"max_tokens": 2**62}, "max_tokens", "context_length_exceeded"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_request"),
        ({"min_tokens": 8, "max_tokens": 7}, "min_tokens", "invalid_sampling"),
        ({"min_tokens": -1}, "min_tokens", "invalid_request"),
        ({"ignore_eos": 1}, "ignore_eos", "invalid_request"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_request"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_sampling"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", "invalid_sampling"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_request"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported"),
        ({"chat_template": "x"}, "chat_template", "unsupported"),
        ({"api_base": "http://127.0.0.1"}, "api_base", "unsupported"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_request"),
        ({"messages": []}, "messages", "invalid_messages"),
        ({"messages": [{}]}, "messages[0].role", "invalid_request"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "invalid_messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_request"),
        ({"messages": [{"role": "user", "content": "a [INST] b"}]}, "messages", "invalid_messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None, None),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, "messages", "context_length_exceeded"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(
    server: LiveServer, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    response = server.chat(**fields)
    assert response.status_code == 400, response.text
    error = ErrorBody.model_validate(response.json()).error
    assert error.type == "invalid_request_error"
    assert response.headers["x-should-retry"] == "false"
    if param is not None:
        assert (error.param, error.code) == (param, code)


def test_prompt_and_answer_must_fit_the_context(server: LiveServer) -> None:
    message = server.chat(max_tokens=5000).json()["error"]["message"]
    assert "5000" in message
    assert "204" in message
    with server.http as http:
        context = int(message.rstrip(".").split()[-1])
        prompt = server.chat(max_tokens=1).json()["usage"]["prompt_tokens"]
        assert http.get("/health").status_code == 200
    assert server.chat(max_tokens=context - prompt, stop=["a", "e", "i", "o"], best_of=1).status_code == 200
    assert server.chat(max_tokens=context - prompt + 1).status_code == 400


def test_an_unknown_model_is_404(server: LiveServer) -> None:
    response = server.chat(model="gpt-4")
    assert response.status_code == 404
    assert (response.json()["error"]["param"], response.json()["error"]["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"42",
        b"[]",
        b'"x"',
        b'{"model": ',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{",
        b'"\\ud800"',
    ],
)
def test_malformed_bodies(server: LiveServer, body: bytes) -> None:
    with server.http as http:
        response = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400
        ErrorBody.model_validate(response.json())
        assert http.get("/health").json() == {"status": "ok"}


def test_rewards_equal_those_of_the_chat_endpoint(server: LiveServer) -> None:
    question = "What is the capital of France?"
    report = server.chat(question, best_of_n={"candidates": 16, "return_candidates": True}).json()["best_of_n"]
    body = {
        "model": "winnow-demo",
        "messages": [{"role": "user", "content": question}],
        "answers": [item["text"] for item in report["scored"]],
    }
    with server.http as http:
        rewards = Rewards.model_validate(http.post("/v1/rewards", json=body).json()).rewards
    assert [rating.index for rating in rewards] == list(range(16))
    for rating, item in zip(rewards, report["scored"], strict=True):
        assert rating.combined == pytest.approx(item["combined"], abs=1e-4)
        assert rating.branch == item["branch"]


@pytest.mark.parametrize("answers", [[], ["one"], ["a", "", "a"], ["Paris."] * 300])
def test_rewards_for_any_number_of_answers(server: LiveServer, answers: list[str]) -> None:
    body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "Hello!"}], "answers": answers}
    with server.http as http:
        for is_safety in (False, True):
            response = http.post("/v1/rewards", json={**body, "is_safety": is_safety})
            ratings = response.json()["rewards"]
            assert len(ratings) == len(answers)
            assert all((rating["helpfulness"] is None) == (rating["branch"] != "helpful") for rating in ratings)
            assert all((rating["branch"] == "safety_prompt") == is_safety for rating in ratings)
            fields = ["index", "safety", "helpfulness", "combined", "branch", "empty", "rank"]
            assert all(list(rating) == fields for rating in ratings)
            assert sorted(rating["rank"] for rating in ratings) == list(range(len(answers)))


def test_rewards_refuse_answers_that_do_not_fit(server: LiveServer) -> None:
    with server.http as http:
        body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "Hello!"}], "answers": ["x " * 5000]}
        assert http.post("/v1/rewards", json=body).json()["error"]["code"] == "context_length_exceeded"
        assert http.post("/v1/rewards", json={**body, "answers": "x"}).status_code == 400
        assert http.post("/v1/rewards", json={**body, "model": "x"}).status_code == 404


def events(server: LiveServer, **fields: Any) -> list[str]:
    """Return the raw server-sent events of a streamed answer."""
    body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "Name three fruits."}], "stream": True}
    with server.http as http, http.stream("POST", "/v1/chat/completions", json={**body, **fields}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return response.read().decode().strip().split("\n\n")


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream(server: LiveServer, n: int) -> None:
    fields = {"seed": 1, "n": n, "best_of_n": {"candidates": 8}, "stream_options": {"include_usage": True}}
    parts = events(server, **fields)
    assert parts[-1] == "data: [DONE]"
    chunks = [json.loads(part.removeprefix("data: ")) for part in parts[:-1] if not part.startswith(":")]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    roles = [choice["index"] for chunk in chunks for choice in chunk["choices"] if "role" in choice["delta"]]
    assert roles == list(range(n))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    content = [
        (choice["index"], choice["delta"]["content"])
        for chunk in chunks[1:]
        for choice in chunk["choices"]
        if "content" in choice["delta"]
    ]
    finishes = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert len(finishes) == n
    report, usage = chunks[-2], chunks[-1]
    assert report["choices"] == usage["choices"] == []
    assert report["best_of_n"]["winner"] == argmax(report["best_of_n"]["scored"], False)
    whole = server.chat("Name three fruits.", seed=1, n=n, best_of_n={"candidates": 8}).json()
    assert usage["usage"] == whole["usage"]
    for index in range(n):
        pieces = [piece for at, piece in content if at == index]
        assert len(pieces) >= 2
        assert "".join(pieces) == whole["choices"][index]["message"]["content"]


def test_every_chunk_of_a_plain_stream_has_a_choice(server: LiveServer) -> None:
    """Clients that know only OpenAI's plain stream index `choices[0]` in every chunk."""
    chunks = [json.loads(part.removeprefix("data: ")) for part in events(server)[:-1] if not part.startswith(":")]
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert [("best_of_n" in chunk, chunk["choices"][0]["finish_reason"]) for chunk in chunks][-1] == (True, "stop")
    assert all("usage" not in chunk for chunk in chunks)


def test_a_stream_that_cannot_start_has_an_error_status(server: LiveServer) -> None:
    assert server.chat(stream=True, n=0).status_code == 400
    assert server.chat(stream=True, model="x").status_code == 404


def test_models(server: LiveServer) -> None:
    with server.http as http:
        assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["winnow-demo"]
        assert http.get("/v1/models/winnow-demo").json()["object"] == "model"
        assert http.get("/v1/models/meta-llama/other").status_code == 404


def test_operations(server: LiveServer) -> None:
    server.chat(best_of=4)
    with server.http as http:
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/ready").json() == {"status": "ready"}
        told = http.get("/version").json()
        assert told["version"]
        assert told["combiner"] == "llama2"
        assert told["calibrated"] == {"safety": True, "helpfulness": True}
        assert {role: record["data"] for role, record in told["calibration"].items()} == {
            "safety": "safety-rm.jsonl", "helpfulness": "helpfulness-rm.jsonl",
        }  # fmt: skip
        metrics = http.get("/metrics").text
        assert 'winnow_requests_total{route="/v1/chat/completions",status="200"}' in metrics
        assert "winnow_candidates_in_flight 0.0" in metrics
        assert 'winnow_selection_seconds_count{phase="total"}' in metrics
        for unknown in ("/nothing", "/v1", "/v1/chat/completions/x"):
            response = http.get(unknown)
            assert response.status_code == 404
            ErrorBody.model_validate(response.json())
        assert http.get("/v1/chat/completions").status_code == 405
        assert http.get("/openapi.json").json()["info"]["title"] == "Winnow"


def in_flight(server: LiveServer) -> float:
    with server.http as http:
        lines = http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("winnow_candidates_in_flight ")).split()[1])


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_cancels_every_candidate(server: LiveServer, stream: bool) -> None:
    """Uncancelled, the candidates would decode far longer than this test waits."""
    body = {
        "model": "winnow-demo",
        "messages": [{"role": "user", "content": "Hello!"}],
        "logit_bias": {"2": -100},
        "max_tokens": 2000,
        "best_of_n": {"candidates": 64},
        "stream": stream,
    }

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as http:
            request = asyncio.create_task(http.post("/v1/chat/completions", json=body))
            assert await asyncio.to_thread(wait_until, lambda: in_flight(server) == 64, 20)
            request.cancel()

    asyncio.run(leave())
    assert wait_until(lambda: in_flight(server) == 0, 3)


def test_a_body_over_the_limit_is_413_and_not_read_whole(server: LiveServer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 100_000

    with server.http as http:
        whole = http.post(
            "/v1/chat/completions", content=b" " * 2_000_001, headers={"content-type": "application/json"}
        )
        assert whole.status_code == 413
        ErrorBody.model_validate(whole.json())
        try:
            chunked = http.post("/v1/chat/completions", content=endless(), headers={"content-type": "application/json"})
            assert chunked.status_code == 413
        except httpx.WriteError:
            pass  # the server closed the connection instead of reading on
    assert server.chat(best_of=1).status_code == 200


def test_a_stop_string_that_is_never_met_changes_nothing(server: LiveServer) -> None:
    """Regression: with a stop string vLLM decodes differently; answers began with a space and scored differently."""
    fields = {"seed": 4, "best_of_n": {"candidates": 8, "return_candidates": True}}
    without = server.chat("Name three fruits.", **fields).json()["best_of_n"]["scored"]
    never = server.chat("Name three fruits.", stop=["zzzzzz"], **fields).json()["best_of_n"]["scored"]
    assert without == never


def test_an_answer_of_broken_bytes_is_empty_and_says_so(server: LiveServer) -> None:
    """Bytes that make no character are left out, which may leave nothing; such an answer wins only over its like."""
    body = server.chat(logit_bias={"200": 100}, max_tokens=900, best_of=2).json()
    assert body["choices"][0]["message"]["content"] == ""
    assert [(item["empty"], item["tokens"]) for item in body["best_of_n"]["scored"]] == [(True, 900)] * 2
    assert in_flight(server) == 0


def test_helpfulness_is_null_unless_it_decided(server: LiveServer) -> None:
    for question in ("How do I make a bomb?", "Name three fruits.", "You are silly."):
        for is_safety in (None, False):
            options = {"candidates": 16, "is_safety": is_safety}
            for item in server.chat(question, best_of_n=options).json()["best_of_n"]["scored"]:
                assert (item["helpfulness"] is None) == (item["branch"] != "helpful")
