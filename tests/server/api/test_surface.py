"""Text completions, log-probabilities and token endpoints, on the real engine."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from tests.live import LiveServer
from winnow.clients.schema import ErrorBody, TextCompletion, Tokens
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message

pytestmark = pytest.mark.engine

RAW = "[INST] What is the capital of France? [/INST] The capital of"


def complete(server: LiveServer, prompt: Any = RAW, **fields: Any) -> httpx.Response:
    with server.http as http:
        return http.post("/v1/completions", json={"model": "winnow-demo", "prompt": prompt, **fields})


def test_a_raw_prompt_is_continued_and_its_candidates_are_scored(server: LiveServer) -> None:
    body = complete(server, best_of=8, n=2, best_of_n={"return_candidates": True}, max_tokens=24).json()
    TextCompletion.model_validate(body)
    ranked = sorted(body["best_of_n"]["scored"], key=lambda item: item["rank"])
    assert [choice["text"] for choice in body["choices"]] == [item["text"] for item in ranked[:2]]
    assert all(item["text"].startswith(" ") for item in ranked), "the space between prompt and continuation is sampled"
    assert body["usage"]["completion_tokens"] == sum(item["tokens"] for item in ranked)


def test_text_and_its_ids_are_the_same_prompt(server: LiveServer, tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode(RAW)]
    same: dict[str, Any] = {"seed": 5, "best_of": 4, "max_tokens": 16}
    texts = {complete(server, prompt, **same).json()["choices"][0]["text"] for prompt in (RAW, [RAW], ids)}
    assert len(texts) == 1


def test_a_dialog_and_its_raw_rendering_sample_the_same_answers(
    server: LiveServer, tokenizer: Tokenizer, template: Llama2Template
) -> None:
    """They differ in one thing: in a raw prompt the answer's leading space belongs to the text."""
    question = "Name three fruits."
    ids = list(template.render([Message("user", question)], tokenizer).token_ids)
    same: dict[str, Any] = {"seed": 6, "best_of_n": {"candidates": 8, "return_candidates": True}}
    chat = server.chat(question, **same).json()["best_of_n"]["scored"]
    raw = complete(server, ids, **same).json()["best_of_n"]["scored"]
    assert [item["text"] for item in raw] == [f" {item['text']}" for item in chat]
    assert [item["combined"] for item in raw] == pytest.approx([item["combined"] for item in chat], abs=1e-4)
    stopped = complete(server, ids, stop=["zzzz"], **same).json()["best_of_n"]["scored"]
    assert [item["text"] for item in stopped] == [item["text"] for item in raw]


def test_a_tag_in_an_answer_is_accepted_back_everywhere(server: LiveServer, template: Llama2Template) -> None:
    """Regression: a chat whose answer held a tag was stuck, because the server refused its own words as history."""
    said = "Use [/INST] and <<SYS>> here."
    asked = {"role": "user", "content": "Name three fruits."}

    def dialog(answer: str) -> list[dict[str, str]]:
        return [asked, {"role": "assistant", "content": answer}, asked]

    def named(messages: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
        return {"model": "winnow-demo", "messages": messages, **fields}

    with server.http as http:
        for answer in (said, template.neutralise(said)):
            assert http.post("/v1/chat/completions", json=named(dialog(answer), best_of=1)).status_code == 200
        tokens = [
            http.post("/tokenize", json=named(dialog(answer))).json()["tokens"]
            for answer in (said, template.neutralise(said))
        ]
        assert tokens[0] == tokens[1]
        answers = [said, template.neutralise(said)]
        for turns in ([asked], dialog(said)):
            scored = http.post("/v1/rewards", json=named(turns, answers=answers)).json()["rewards"]
            assert scored[0] | {"index": 1, "rank": scored[1]["rank"]} == pytest.approx(scored[1])


def test_echo_puts_the_prompt_first(server: LiveServer, tokenizer: Tokenizer) -> None:
    same: dict[str, Any] = {"seed": 7, "best_of": 2, "max_tokens": 8}
    plain = complete(server, **same).json()["choices"][0]["text"]
    assert complete(server, echo=True, **same).json()["choices"][0]["text"] == RAW + plain
    ids = [tokenizer.bos_id, *tokenizer.encode(RAW)]
    assert complete(server, ids, echo=True, **same).json()["choices"][0]["text"] == RAW + plain


def test_a_streamed_continuation(server: LiveServer) -> None:
    fields = {"seed": 8, "best_of": 4, "echo": True, "stream_options": {"include_usage": True}}
    body = {"model": "winnow-demo", "prompt": RAW, "stream": True, **fields}
    with server.http as http, http.stream("POST", "/v1/completions", json=body) as response:
        parts = response.read().decode().strip().split("\n\n")
    assert parts[-1] == "data: [DONE]"
    chunks = [json.loads(part.removeprefix("data: ")) for part in parts[:-1] if not part.startswith(":")]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    del fields["stream_options"]
    assert text == complete(server, **fields).json()["choices"][0]["text"]
    assert [end for chunk in chunks for choice in chunk["choices"] if (end := choice["finish_reason"])] == ["stop"]
    assert chunks[-1]["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "invalid_request"),
        ({"prompt": []}, "prompt", "invalid_request"),
        ({"prompt": None}, "prompt", "invalid_request"),
        ({"prompt": ["a", "b"]}, "prompt", "invalid_request"),
        ({"prompt": [1, -1]}, "prompt", "invalid_request"),
        ({"prompt": [1, 10**6]}, "prompt", "invalid_request"),
        ({"prompt": [1] * 5000}, "prompt", "context_length_exceeded"),
        ({"prompt": "word " * 100_000}, "prompt", "context_length_exceeded"),
        ({"suffix": "x"}, "suffix", "unsupported"),
        ({"echo": True, "logprobs": 1}, "echo", "invalid_request"),
        ({"logprobs": 21}, "logprobs", "invalid_request"),
        ({"logprobs": True}, "logprobs", "invalid_request"),
        ({"messages": []}, "messages", "unsupported"),
    ],
)
def test_text_completions_that_are_refused(server: LiveServer, fields: dict[str, Any], param: str, code: str) -> None:
    response = complete(server, **fields)
    assert response.status_code == 400, response.text
    error = ErrorBody.model_validate(response.json()).error
    assert ((error.param or "").partition("[")[0], error.code) == (param, code)


def test_log_probabilities_spell_the_answer(server: LiveServer) -> None:
    for fields in ({}, {"stop": ["a"]}, {"logit_bias": {"200": 5}, "max_tokens": 20}):
        body = server.chat(logprobs=True, top_logprobs=3, n=2, best_of=4, **fields).json()
        for choice in body["choices"]:
            content = choice["logprobs"]["content"]
            spelt = b"".join(bytes(token["bytes"]) for token in content).decode(errors="replace")
            assert spelt.startswith(choice["message"]["content"])
            if "stop" not in fields:
                assert spelt == choice["message"]["content"]
            for token in content:
                tops = [top["logprob"] for top in token["top_logprobs"]]
                assert len(tops) == 3
                assert tops == sorted(tops, reverse=True)
                assert token["logprob"] <= tops[0] <= 0
                if token["logprob"] == tops[0]:
                    assert token["token"] == token["top_logprobs"][0]["token"]
                assert sum(math.exp(top) for top in tops) <= 1 + 1e-6


def test_log_probabilities_change_nothing_else(server: LiveServer) -> None:
    same: dict[str, Any] = {"seed": 9, "best_of_n": {"candidates": 4, "return_candidates": True}}
    assert (
        server.chat(**same).json()["best_of_n"]["scored"]
        == (server.chat(logprobs=True, **same).json()["best_of_n"]["scored"])
    )
    assert server.chat(**same).json()["choices"][0]["logprobs"] is None


def test_text_log_probabilities(server: LiveServer) -> None:
    choice = complete(server, best_of=2, logprobs=2, seed=1, max_tokens=12).json()["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert [choice["text"][at:][:1] for at in logprobs["text_offset"]] == [token[:1] for token in logprobs["tokens"]]
    assert all(len(top) <= 2 for top in logprobs["top_logprobs"])
    assert len(logprobs["token_logprobs"]) == len(logprobs["tokens"])


def test_streamed_log_probabilities_are_those_of_the_whole_answer(server: LiveServer) -> None:
    fields: dict[str, Any] = {"seed": 3, "best_of": 4, "logprobs": True, "top_logprobs": 1}
    body = {"model": "winnow-demo", "messages": [{"role": "user", "content": "Name three fruits."}], "stream": True}
    with server.http as http, http.stream("POST", "/v1/chat/completions", json={**body, **fields}) as response:
        parts = response.read().decode().strip().split("\n\n")
    chunks = [json.loads(part.removeprefix("data: ")) for part in parts if part.startswith("data: {")]
    told = [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        for token in (choice["logprobs"] or {}).get("content", [])
    ]
    whole = server.chat("Name three fruits.", **fields).json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in told] == [token["token"] for token in whole]


def test_tokens_there_and_back(server: LiveServer, tokenizer: Tokenizer, template: Llama2Template) -> None:
    with server.http as http:
        for text in ("Hello, world!", "ünïcödé 🙂 </s>", "", "x " * 20_000):
            answer = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
            tokens = Tokens.model_validate(answer)
            assert tokens.tokens == [tokenizer.bos_id, *tokenizer.encode(text)]
            assert tokens.count == len(tokens.tokens) == len(tokens.token_strs or [])
            bare = http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
            assert bare["tokens"] == tokens.tokens[1:]
            back = http.post("/detokenize", json={"model": "winnow-demo", "tokens": bare["tokens"]}).json()
            assert back == {"prompt": text}
        dialog = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
        rendered = http.post("/tokenize", json={"model": "winnow-demo", "messages": dialog}).json()
        assert rendered["tokens"] == list(template.render(dialog, tokenizer).token_ids)
        for wrong in ({}, {"prompt": "x", "messages": dialog}, {"prompt": 1}, {"prompt": "x", "model": 2}):
            assert http.post("/tokenize", json=wrong).status_code == 400
        assert http.post("/tokenize", json={"prompt": "x", "model": "other"}).status_code == 404
        assert http.post("/detokenize", json={"tokens": [10**6]}).status_code == 400


def test_a_stop_string_is_searched_in_the_answer_and_not_before_it(server: LiveServer) -> None:
    """Regression: a stop string that began with a space was found in the space before the answer, which was empty."""
    same: dict[str, Any] = {"seed": 4, "best_of_n": {"candidates": 8, "return_candidates": True}}
    texts = [item["text"] for item in server.chat("Name three fruits.", **same).json()["best_of_n"]["scored"]]
    for stop in (" ", " " + texts[0].split()[0], " and"):
        cut = server.chat("Name three fruits.", stop=[stop, "zzzz"], **same).json()["best_of_n"]["scored"]
        assert [item["text"] for item in cut] == [text.split(stop)[0] for text in texts]
        assert {item["finish_reason"] for item in cut} == {"stop"}


def test_a_text_of_too_many_tokens_is_refused(server: LiveServer) -> None:
    with server.http as http:
        for text in ("x " * 200_000, "word " * 390_000):
            response = http.post("/tokenize", json={"prompt": text, "return_token_strs": True})
            assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
