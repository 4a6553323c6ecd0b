"""A policy behind a chat endpoint, scripted: `n` or one by one, limits, rate limits, tokens, what is never told."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tests.model_servers import KEY, ModelServer, Reply, Seen, chat, options, until
from winnow.models.engines import endpoint, model_server
from winnow.models.engines.addresses import parse_address
from winnow.models.engines.chat import ChatPolicy
from winnow.models.engines.remote import Link, RemoteModel
from winnow.models.errors import CandidateFailed, CandidateStopped, PolicyUnavailable
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Message, Prompt

pytestmark = pytest.mark.asyncio(loop_scope="function")  # an engine's connections end with its loop
PROMPT = Prompt((1, 2), (Message("system", "Be brief."), Message("user", "What is secret?")))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)


def several(body: dict[str, Any]) -> list[str]:
    return [f"answer {place}" for place in range(body.get("n", 1))]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer.running(chat(several)) as running:
        yield running


def engine(server: ModelServer, tokenizer: Tokenizer, **limits: Any) -> ChatPolicy:
    link = Link(parse_address(f"chat:{server.url}/v1", "completions"), KEY, **limits)
    model = ChatPolicy(options("policy"), RemoteModel(link, "gpt"), tokenizer)
    server.users.append(model)
    return model


async def sampled(model: ChatPolicy, count: int, **sampling: Any) -> list[Candidate]:
    chosen = Sampling(**{"max_tokens": 50, **sampling})
    return list(await asyncio.gather(*(model.sample(PROMPT, chosen, index) for index in range(count))))


async def test_candidates_of_a_prompt_are_one_request(server: ModelServer, tokenizer: Tokenizer) -> None:
    model = engine(server, tokenizer)
    found = await sampled(model, 4, seed=5, stop=("x",), top_p=0.9)
    assert [(one.index, one.text, one.finish_reason) for one in found] == [
        (place, f"answer {place}", "stop") for place in range(4)
    ]
    (seen,) = server.posts()
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "gpt", "messages": [message.as_dict() for message in PROMPT.messages], "temperature": 1.0,
        "max_tokens": 50, "top_p": 0.9, "stop": ["x"], "seed": candidate_seed(5, 0) % 2**31, "n": 4,
    }  # fmt: skip
    assert sum(one.tokens for one in found) == 40
    assert sum(one.prompt_tokens or 0 for one in found) == 20
    assert (model.prompt_tokens, model.completion_tokens) == (20, 40)


@pytest.mark.parametrize("way", ["ignores", "refuses"])
async def test_an_endpoint_without_n_is_asked_for_each(server: ModelServer, tokenizer: Tokenizer, way: str) -> None:
    def script(seen: Seen) -> Reply:
        if way == "refuses" and seen.body and "n" in seen.body:
            return Reply({"error": {"message": "n must be 1"}}, 400)
        return chat(lambda body: [f"seed {body['seed']}"])(seen)

    server.script = script
    model = engine(server, tokenizer)
    found = await sampled(model, 4, seed=5)
    own = [f"seed {candidate_seed(5, place) % 2**31}" for place in range(4)]
    assert [one.text for one in found] == own
    asked = len(server.posts())
    assert asked == 5 if way == "refuses" else 4
    assert [one.text for one in await sampled(model, 4, seed=5)] == own
    assert len(server.posts()) == asked + 4, "n is not tried again"
    assert sum(one.prompt_tokens or 0 for one in found) == 80


async def test_a_group_that_is_left_before_it_is_asked_for_is_kept_nowhere(
    server: ModelServer, tokenizer: Tokenizer
) -> None:
    model = engine(server, tokenizer)
    waiting = asyncio.create_task(sampled(model, 3))
    await until_open(model)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert not model._open
    assert not server.posts()


async def until_open(model: ChatPolicy) -> None:
    """Return in the turn of the loop in which a group is opened."""
    while not model._open:  # noqa: ASYNC110, it is opened in a turn of this loop
        await asyncio.sleep(0)


async def test_a_request_that_is_refused_for_itself_fails_its_candidates(
    server: ModelServer, tokenizer: Tokenizer
) -> None:
    server.script = lambda seen: Reply({"error": {"code": "context_length_exceeded", "message": "secret"}}, 400)
    model = engine(server, tokenizer)
    for _ in range(2):
        with pytest.raises(CandidateFailed, match=r"\(status 400\): context_length_exceeded$"):
            await sampled(model, 3)
    tried = sum("n" in seen.body for seen in server.posts())
    assert tried == 2, "no answer says that it lacks n, so the second sampling tries it too"
    assert model.outage is None


async def test_the_limit_goes_into_the_field_that_the_model_takes(server: ModelServer, tokenizer: Tokenizer) -> None:
    def script(seen: Seen) -> Reply:
        if seen.body and "max_tokens" in seen.body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return Reply({"error": {"message": message, "code": "unsupported_parameter"}}, 400)
        return chat(several)(seen)

    server.script = script
    model = engine(server, tokenizer)
    assert len(await sampled(model, 4)) == 4
    assert len(server.posts()) == 2
    assert server.posts()[-1].body["max_completion_tokens"] == 50
    await sampled(model, 2)
    assert len(server.posts()) == 3


async def test_retry_after_is_heeded_by_all_requests(server: ModelServer, tokenizer: Tokenizer) -> None:
    times: list[float] = []

    def script(seen: Seen) -> Reply:
        times.append(time.monotonic())
        return Reply({}, 429, {"Retry-After": "0.3"}) if len(times) == 1 else chat(several)(seen)

    server.script = script
    model = engine(server, tokenizer)
    first = asyncio.create_task(sampled(model, 2))
    await until(lambda: len(times) == 1 and model.server.endpoints[0].busy_until > 0)
    await asyncio.gather(first, sampled(model, 2), model.sample(PROMPT, Sampling(max_tokens=5), 0))
    assert min(times[1:]) >= times[0] + 0.3
    assert model.outage is None


@pytest.mark.parametrize("advice", ["40", formatdate(time.time() + 2000, usegmt=True)])
async def test_a_limit_that_outlasts_the_request_ends_it_at_once(
    server: ModelServer, tokenizer: Tokenizer, advice: str
) -> None:
    server.script = lambda seen: Reply({}, 429, {"Retry-After": advice})
    model = engine(server, tokenizer, seconds=30)
    with pytest.raises(PolicyUnavailable, match="the policy is not available: it is busy") as told:
        await sampled(model, 2)
    assert told.value.retry_after in (40, 60)
    assert len(server.posts()) == 1


async def test_a_quota_that_is_used_up_is_an_outage(server: ModelServer, tokenizer: Tokenizer) -> None:
    server.script = lambda seen: Reply({"error": {"code": "insufficient_quota"}}, 429)
    model = engine(server, tokenizer)
    with pytest.raises(PolicyUnavailable, match="its quota is used up"):
        await sampled(model, 2)
    assert model.outage
    server.script = chat(several)
    await until(lambda: model.outage is None)


@pytest.mark.parametrize(
    ("message", "finish_reason", "text"),
    [
        ({"content": None, "refusal": "I cannot."}, "stop", "I cannot."),
        ({"content": "cut"}, "length", "cut"),
        ({"content": "x"}, "eos_token", "x"),
        ({"content": None}, "stop", ""),
        ({"content": None}, "content_filter", None),
        ({"content": None}, "tool_calls", None),
        ({"content": ["x"]}, "stop", None),
        ("x", "stop", None),
    ],
)
async def test_what_is_no_answer_is_never_one(
    server: ModelServer, tokenizer: Tokenizer, message: Any, finish_reason: str, text: str | None
) -> None:
    server.script = lambda seen: Reply({"choices": [{"message": message, "finish_reason": finish_reason}]})
    model = engine(server, tokenizer)
    if text is None:
        with pytest.raises((CandidateFailed, PolicyUnavailable)):
            await sampled(model, 1)
        return
    (found,) = await sampled(model, 1)
    assert (found.text, found.finish_reason) == (text, "length" if finish_reason == "length" else "stop")
    assert found.tokens > 0


async def test_the_last_candidate_that_leaves_closes_the_request(server: ModelServer, tokenizer: Tokenizer) -> None:
    never = threading.Event()
    server.script = lambda seen: Reply(hold=never)
    model, sampling = engine(server, tokenizer), Sampling(max_tokens=5)
    handle = CandidateHandle()
    stopped = asyncio.create_task(model.sample(PROMPT, sampling, 0, handle))
    left = asyncio.create_task(model.sample(PROMPT, sampling, 1))
    await until(lambda: len(server.posts()) == 1)
    await handle.stop()
    with pytest.raises(CandidateStopped):
        await stopped
    assert server.left == 0
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    await until(lambda: server.left == 1)
    assert model.unfinished == 0


async def test_a_group_that_was_left_before_it_began_is_joined_by_nobody(
    server: ModelServer, tokenizer: Tokenizer
) -> None:
    model, sampling = engine(server, tokenizer), Sampling(max_tokens=5)
    early = asyncio.create_task(model.sample(PROMPT, sampling, 0))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.gather(early, return_exceptions=True)
    assert (await model.sample(PROMPT, sampling, 1)).text == "answer 0"


async def test_neither_keys_nor_texts_are_told(
    server: ModelServer, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model = engine(server, tokenizer)
    errors = []
    for reply in (Reply({"error": {"message": f"{KEY} secret"}}, 400), Reply({"error": {"message": KEY}}, 401)):
        server.script = lambda seen, reply=reply: reply
        with pytest.raises((CandidateFailed, PolicyUnavailable)) as told:
            await sampled(model, 1)
        errors.append(str(told.value))
    for text in (caplog.text, *errors, repr(model.remote)):
        assert KEY not in text
        assert "secret" not in text


async def test_half_a_character_in_an_answer_is_replaced(server: ModelServer, tokenizer: Tokenizer) -> None:
    """An answer cut within an emoji ended the whole request with a traceback."""
    choices = ",".join(
        f'{{"message":{{"content":"{text}"}},"finish_reason":"length"}}'
        for text in (r"a\ud83d", r"\udc00b", r"\ud83e\udd89")
    )
    server.script = lambda seen: Reply(f'{{"choices":[{choices}]}}'.encode())
    found = await sampled(engine(server, tokenizer), 3)
    assert [one.text for one in found] == ["a\ufffd", "\ufffdb", "🦉"]
