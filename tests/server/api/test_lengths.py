"""`min_tokens`, `ignore_eos` and `repetition_penalty`, which vLLM honours, and streams with log-probabilities."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.live import LiveServer
from winnow.models.tokenizer import Tokenizer

pytestmark = pytest.mark.engine

SAME: dict[str, Any] = {"seed": 4, "best_of_n": {"candidates": 8, "return_candidates": True}}


def scored(server: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    response = server.chat("Name three fruits.", **{**SAME, **fields})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["best_of_n"]["scored"]
    return found


def test_without_eos_every_answer_runs_to_the_limit(server: LiveServer) -> None:
    """EOS is sampled and passed over: what comes before it is the plain answer, and it is no part of the text."""
    plain, ignored = scored(server), scored(server, ignore_eos=True, max_tokens=48)
    assert {(item["tokens"], item["finish_reason"]) for item in ignored} == {(48, "length")}
    for before, after in zip(plain, ignored, strict=True):
        assert after["text"].startswith(before["text"])
        assert "</s>" not in after["text"]
        assert "\ufffd" not in after["text"]


def test_no_answer_has_fewer_than_min_tokens(server: LiveServer) -> None:
    plain, longer = scored(server), scored(server, min_tokens=24, max_tokens=48)
    assert min(item["tokens"] for item in plain) < 24
    assert all(24 <= item["tokens"] <= 48 for item in longer)
    assert scored(server, min_tokens=1) == plain


def test_a_stop_string_within_min_tokens_ends_nothing(server: LiveServer) -> None:
    first = scored(server, min_tokens=24, max_tokens=32)[0]["text"]
    for stop in (first[:3], " "):
        assert all(item["tokens"] >= 24 for item in scored(server, min_tokens=24, max_tokens=32, stop=[stop]))
    (again, *_) = scored(server, min_tokens=24, max_tokens=32, stop=[first[:3], "zzzz"])
    assert again["text"].startswith(first[:3])


def test_a_repetition_penalty_makes_answers_less_repetitive(server: LiveServer) -> None:
    def repeats(**fields: Any) -> int:
        texts = [item["text"].split() for item in scored(server, ignore_eos=True, max_tokens=64, **fields)]
        return sum(count - 1 for words in texts for count in Counter(words).values())

    assert repeats(repetition_penalty=1.5) < repeats()
    assert scored(server, repetition_penalty=1.0) == scored(server)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_the_pieces_of_a_stream_have_the_log_probabilities_of_the_whole(
    server: LiveServer, path: str, tokenizer: Tokenizer
) -> None:
    is_chat = "chat" in path
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": "Name three fruits."}]}
    body = {"model": "winnow-demo", "seed": 3, "best_of": 4, "n": 2, "ignore_eos": True, "max_tokens": 40}
    body |= {**prompt, "logprobs": True, "top_logprobs": 2} if is_chat else {"prompt": "Name three", "logprobs": 2}
    with server.http as http:
        whole = http.post(path, json=body).json()
        told = http.post(path, json={**body, "stream": True}).text
    chunks = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]
    for choice in whole["choices"]:
        parts = [each for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]]
        logprobs = [part["logprobs"] for part in parts if part["logprobs"]]
        assert len(logprobs) > 1
        for name in ("content",) if is_chat else ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [item for each in logprobs for item in each[name]] == choice["logprobs"][name]
        if is_chat:
            for part in parts[1:-1]:
                if part["logprobs"] and part["delta"].get("content"):
                    spelt = b"".join(bytes(token["bytes"]) for token in part["logprobs"]["content"])
                    assert spelt.decode() == part["delta"]["content"]


def test_answers_of_agents_teams_on_the_real_engine(server: LiveServer) -> None:
    dialog = [
        {"role": "system", "content": "Be brief.", "name": "planner"},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Name a fruit.", "name": "a"},
        {"role": "user", "content": "Please.", "name": "b"},
    ]
    assert server.chat(messages=dialog).status_code == 400
    assert server.chat(messages=dialog, best_of_n={"merge_turns": True}).status_code == 200
