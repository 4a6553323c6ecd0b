"""Both clients, by the same tests: requests, results, and retries."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.clients.any_client import Open
from tests.clients.scripts import REPORT, USAGE, Script, completion, reply
from winnow.clients import (
    InvalidRequest,
    Unsupported,
)
from winnow.clients.calls import Options
from winnow.clients.schema import (
    BestOfNOptions,
    ChatRequest,
    Detokenized,
    Rating,
    Rewards,
    Status,
    Tokens,
    Version,
    WithoutEffect,
)

REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
KEY = "sk-secret-0123456789"


def sent(script: Script, index: int = -1) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(script.requests[index].content)
    return body


async def test_an_answer_with_its_scores(opening: Open) -> None:
    script = Script([reply(completion("Paris.", "It is Paris."), x_request_id="req_server")])
    async with opening(script) as client:
        answer = await client.answer("What is the capital of France?", n=2)
    assert answer.text == "Paris."
    assert answer.texts == ("Paris.", "It is Paris.")
    assert (answer.id, answer.request_id, answer.finish_reason) == ("chatcmpl-1", "req_server", "stop")
    assert (answer.report, answer.usage) == (REPORT, USAGE)
    assert answer.winner.combined == 0.75
    assert [item.index for item in answer.candidates] == [2, 1, 0]
    assert (answer.failed, answer.is_refused, answer.all_unsafe) == ((), False, False)


async def test_a_refusal_is_distinguished_from_an_answer(opening: Open) -> None:
    body = completion("I cannot help with that.")
    refused = body.model_copy(
        update={
            "choices": [body.choices[0].model_copy(update={"finish_reason": "content_filter"})],
            "best_of_n": REPORT.model_copy(update={"all_unsafe": True}),
        }
    )
    async with opening(Script([reply(refused)])) as client:
        answer = await client.answer("…")
    assert answer.is_refused
    assert answer.all_unsafe


async def test_a_plain_call_sends_only_the_dialog(opening: Open) -> None:
    """Options that are not given are left to the server's defaults."""
    script = Script([reply(completion())])
    async with opening(script, api_key=KEY) as client:
        await client.answer("Hello!")
    assert sent(script) == {"model": "winnow-demo", "messages": [{"role": "user", "content": "Hello!"}]}
    (request,) = script.requests
    assert str(request.url) == "http://winnow.test/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"


async def test_every_option_arrives(opening: Open) -> None:
    options: dict[str, Any] = {
        "model": "m",
        "candidates": {"min": 2, "max": 4},
        "deadline_ms": 500,
        "accept_reward": 0.9,
        "early_rejection": {"at_tokens": (4, 8), "keep": 0.5},
        "adaptive": False,
        "n": 2,
        "is_safety": True,
        "combiner": "safe_first",
        "merge_turns": True,
        "return_candidates": True,
        "usage": "winner",
        "temperature": 1,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "max_tokens": 7,
        "min_tokens": 2,
        "ignore_eos": True,
        "stop": ("a", "b"),
        "seed": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.2,
        "logit_bias": {5: 1.5},
        "logprobs": True,
        "top_logprobs": 2,
        "store": True,
        "user": "u",
        "request_id": "mine-1",
    }
    assert options.keys() == Options.__annotations__.keys()
    dialog = ({"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "€\u2028"}]})
    script = Script([reply(completion())])
    async with opening(script) as client:
        assert (await client.answer(dialog, **options)).request_id == "mine-1"
    body = ChatRequest.model_validate(sent(script))
    assert (body.candidates, body.options.is_safety, body.options.combiner) == (4, True, "safe_first")
    assert (body.stop_strings, body.logit_bias, body.alternatives) == (("a", "b"), {"5": 1.5}, 2)
    assert [message.text for message in body.messages] == ["s", "€\u2028"]
    assert script.requests[0].headers["x-request-id"] == "mine-1"
    flat = sent(script)
    inner = {
        "candidates",
        "deadline_ms",
        "accept_reward",
        "early_rejection",
        "adaptive",
        "is_safety",
        "combiner",
        "merge_turns",
        "return_candidates",
        "usage",
    }
    assert flat["best_of_n"].keys() == inner
    for name in options.keys() - {*inner, "request_id"}:
        assert name in flat
    assert script.listed == 0


def test_the_options_are_those_of_the_schema() -> None:
    """A new field of the schema must be available in the client."""
    made_by_the_client = {"messages", "stream", "stream_options", "best_of_n", "progress"}
    other_names = {"best_of", "max_completion_tokens"}
    without_effect = WithoutEffect.model_fields.keys() - {"user", "request_id", "store"}
    fields = ChatRequest.model_fields.keys() | BestOfNOptions.model_fields.keys()
    assert fields - made_by_the_client - other_names - without_effect == Options.__annotations__.keys()


@pytest.mark.parametrize(
    ("dialog", "options", "param", "kind"),
    [
        ("hi", {"temperature": 3.0}, "temperature", InvalidRequest),
        ("hi", {"temperature": float("nan")}, "temperature", InvalidRequest),
        ("hi", {"temperature": "1"}, "temperature", InvalidRequest),
        ("hi", {"candidates": 0}, "best_of_n.candidates", InvalidRequest),
        ("hi", {"top_logprobs": 2}, "top_logprobs", InvalidRequest),
        ("hi", {"request_id": "two words"}, "request_id", InvalidRequest),
        ("a lone \ud800", {}, None, InvalidRequest),
        ([{"role": "tool", "content": "x"}], {}, "messages[0].role", InvalidRequest),
        ([{"role": "user", "content": "x", "tool_calls": [1]}], {}, "messages[0].tool_calls", Unsupported),
    ],
)
async def test_an_invalid_request_is_not_sent(
    opening: Open, dialog: Any, options: dict[str, Any], param: str | None, kind: type[InvalidRequest]
) -> None:
    script = Script([reply(completion())])
    async with opening(script) as client:
        with pytest.raises(kind) as refused:
            await client.answer(dialog, **options)
        with pytest.raises(kind):
            [_ async for _ in client.events(dialog, **options)]
    assert (refused.value.param, refused.value.status) == (param, None)
    assert not script.requests


@pytest.mark.parametrize("option", ["temprature", "stream", "messages", "best_of_n"])
async def test_an_unknown_option_is_a_type_error(opening: Open, option: str) -> None:
    async with opening(Script([reply(completion())])) as client:
        with pytest.raises(TypeError, match=option):
            await client.answer("hi", **{option: True})


async def test_the_served_model_is_fetched_once(opening: Open) -> None:
    script = Script([reply(completion())])
    async with opening(script) as client:
        await asyncio.gather(*(client.answer("hi") for _ in range(5)))
        await client.answer("hi", model="other")
    assert script.listed == 1
    assert [sent(script, index)["model"] for index in range(6)] == ["winnow-demo"] * 5 + ["other"]


async def test_the_other_routes(opening: Open) -> None:
    rating = Rating(index=0, safety=0.9, helpfulness=0.5, combined=0.5, branch="helpful", rank=0)
    script = Script(
        [
            reply(Rewards(model="m", rewards=[rating])),
            reply(Tokens(count=2, max_model_len=256, tokens=[1, 2])),
            reply(Tokens(count=2, max_model_len=256, tokens=[1, 2], token_strs=["<s>", "a"])),
            reply(Detokenized(prompt="a")),
            reply(Status(status="ok")),
            reply(Status(status="ready")),
            reply(Version(version="1", engine="e", combiner="safe_first")),
        ]
    )
    async with opening(script, "https://winnow.test/behind/a/proxy/v1/") as client:
        assert await client.rewards("hi", ("Hello!",), is_safety=True) == [rating]
        assert (await client.tokenize("a")).tokens == [1, 2]
        assert (await client.tokenize([{"role": "user", "content": "a"}], return_token_strs=True)).token_strs
        assert await client.detokenize((1, 2)) == "a"
        assert await client.health()
        assert await client.ready()
        assert (await client.version()).combiner == "safe_first"
        assert [card.id for card in await client.models()] == ["winnow-demo"]
    paths = ["v1/rewards", "tokenize", "tokenize", "detokenize", "health", "ready", "version"]
    assert [str(request.url) for request in script.requests] == [
        f"https://winnow.test/behind/a/proxy/{path}" for path in paths
    ]
    assert sent(script, 0)["answers"] == ["Hello!"]
    assert sent(script, 1)["prompt"] == "a"
    assert "prompt" not in sent(script, 2)


@pytest.mark.parametrize("answer", [REFUSED, reply(Status(status="dead"), 503), httpx.ReadTimeout("slow")])
async def test_probes_are_not_retried(opening: Open, answer: httpx.Response | Exception) -> None:
    script = Script([answer])
    async with opening(script) as client:
        assert not await client.health()
        assert not await client.ready()
    assert len(script.requests) == 2
    assert not client.pauses
