"""A policy on vLLM servers, scripted: what is sent, what is made of the answer, stops, checkpoints, repetitions."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.model_servers import KEY, ModelServer, Reply, Seen, completion, models, options, policy, pool, until
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines import endpoint, model_server
from winnow.models.engines.completions import RemotePolicy, start_policy
from winnow.models.errors import CandidateFailed, CandidateStopped, CheckpointError, PolicyUnavailable
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling, candidate_seed
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt, TokenLogprob

pytestmark = pytest.mark.asyncio(loop_scope="function")  # an engine's connections end with its loop
POLICY = demo.weights("policy")
TEXT = "Paris is the capital, naïvely 🦉."


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)


@pytest.fixture
def ids(tokenizer: Tokenizer) -> list[int]:
    """An answer with the space before it, and EOS."""
    return [*tokenizer.encode_continuation(f" {TEXT}"), tokenizer.eos_id]


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Prompt:
    return Llama2Template().render([Message("user", "What is it?")], tokenizer)


@pytest.fixture
def server(ids: list[int]) -> Iterator[ModelServer]:
    with ModelServer.running(policy(lambda body: ids)) as running:
        yield running


@pytest.fixture
def second(ids: list[int]) -> Iterator[ModelServer]:
    with ModelServer.running(policy(lambda body: ids)) as running:
        yield running


def engine(tokenizer: Tokenizer, *servers: ModelServer, **limits: Any) -> RemotePolicy:
    model = start_policy(options("policy", checkpoint=str(POLICY)), pool("completions", *servers, **limits), tokenizer)
    servers[0].users.append(model)
    for one in servers:
        one.seen.clear()
    return model


async def test_ids_go_over_the_wire_and_nothing_is_left_to_the_servers_defaults(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int]
) -> None:
    model = engine(tokenizer, server)
    sampling = Sampling(max_tokens=99, temperature=0.5, top_k=7, logit_bias={5: 1.5}, seed=3, stop=("x", " y"))
    answer = await model.sample(prompt, sampling, 4)
    assert (answer.text, answer.finish_reason, answer.tokens, answer.index) == (TEXT, "stop", len(ids), 4)
    (seen,) = server.posts()
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "rm", "prompt": list(prompt.token_ids), "max_tokens": 99, "min_tokens": 0, "ignore_eos": False,
        "temperature": 0.5, "top_p": 1.0, "top_k": 7, "min_p": 0.0, "stop": ["x"], "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "repetition_penalty": 1.0, "seed": candidate_seed(3, 4), "return_token_ids": True,
        "logit_bias": {"5": 1.5},
    }  # fmt: skip
    assert (model.context, model.vocabulary) == (2048, 2048)


@pytest.mark.parametrize(
    ("dropped", "finish_reason", "stop", "text", "reason"),
    [
        (0, "stop", (), TEXT, "stop"),
        (0, "stop", ("capital",), "Paris is the ", "stop"),
        (3, "length", (), "Paris is the capital, naïvely ", "length"),
    ],
)
async def test_an_answer_is_cut_and_spelled_as_on_an_engine_here(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int], dropped: int, finish_reason: str,
    stop: tuple[str, ...], text: str, reason: str,
) -> None:  # fmt: skip
    given = ids[: len(ids) - dropped]
    script = policy(lambda body: given)
    server.script = lambda seen: (
        Reply(completion(seen, given, finish_reason)) if seen.path == "/v1/completions" else script(seen)
    )
    answer = await engine(tokenizer, server).sample(prompt, Sampling(max_tokens=99, stop=stop), 0)
    assert (answer.text, answer.finish_reason, answer.tokens) == (text, reason, len(given))


async def test_another_id_that_ended_the_answer_there_is_no_text(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int]
) -> None:
    """A server may stop at ids that only its own configuration names."""
    (other,) = tokenizer.encode_continuation("x")
    model = engine(tokenizer, server)
    server.script = lambda seen: Reply(completion(seen, [*ids[:-1], other], "stop", other))
    assert (await model.sample(prompt, Sampling(max_tokens=99), 0)).text == TEXT


async def test_log_probabilities_are_read_by_ids_in_their_order(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt
) -> None:
    logprobs = {
        "tokens": ["token_id:7", "token_id:9", "token_id:2"],
        "token_logprobs": [-2.5, -0.5, -0.1],
        "top_logprobs": [
            {"token_id:7": -2.5, "token_id:4": -0.25, "token_id:5": -1.0},
            {"token_id:9": -0.5, "token_id:3": -1.5},
            {"token_id:2": -0.1, "token_id:3": -1.5},
        ],
    }
    model = engine(tokenizer, server)
    server.script = lambda seen: Reply(completion(seen, [7, 9, tokenizer.eos_id], logprobs=logprobs))
    answer = await model.sample(prompt, Sampling(max_tokens=9, alternatives=2), 0)
    assert answer.logprobs == (
        TokenLogprob(7, -2.5, ((4, -0.25), (5, -1.0))), TokenLogprob(9, -0.5, ((9, -0.5), (3, -1.5)))
    )  # fmt: skip
    assert server.posts()[-1].body["logprobs"] == 2
    server.script = lambda seen: Reply(completion(seen, [7], logprobs={"token_logprobs": [None], "top_logprobs": [{}]}))
    with pytest.raises(PolicyUnavailable):
        await model.sample(prompt, Sampling(max_tokens=9, alternatives=2), 0)


async def test_checkpoints_are_passed_while_it_streams(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int]
) -> None:
    seen: list[tuple[int, str]] = []
    handle = CandidateHandle((2, 5, 900), lambda place, text: seen.append((place, text)))
    answer = await engine(tokenizer, server).sample(prompt, Sampling(max_tokens=99), 0, handle)
    assert (answer.text, answer.tokens) == (TEXT, len(ids))
    texts = [tokenizer.decode_continuation(ids[:count]).removeprefix(" ") for count in (2, 5)]
    assert seen == list(enumerate(texts))


async def test_a_stopped_candidate_tells_its_tokens_and_closes_its_connection(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int]
) -> None:
    model, never, passed = engine(tokenizer, server), threading.Event(), asyncio.Event()
    server.script = lambda seen: Reply(events=[completion(seen, ids[:4], None)], hold=never)
    handle = CandidateHandle((4,), lambda *_: passed.set())
    task = asyncio.create_task(model.sample(prompt, Sampling(max_tokens=99), 0, handle))
    await passed.wait()
    await handle.stop()
    with pytest.raises(CandidateStopped) as told:
        await task
    assert told.value.tokens == 4
    await until(lambda: server.left == 1)
    assert model.unfinished == 0
    with pytest.raises(CandidateStopped):
        await model.sample(prompt, Sampling(max_tokens=99), 0, CandidateHandle(is_stopped=True))


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_cancelled_candidate_closes_its_connection(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int], is_streamed: bool
) -> None:
    model, never = engine(tokenizer, server), threading.Event()
    server.script = lambda seen: Reply(events=[completion(seen, ids[:4], None)] if is_streamed else (), hold=never)
    handles = [CandidateHandle() if is_streamed else None for _ in range(16)]
    tasks = [
        asyncio.create_task(model.sample(prompt, Sampling(max_tokens=99), place, handle))
        for place, handle in enumerate(handles)
    ]
    await until(lambda: len(server.posts()) == 16)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
    await until(lambda: server.left == 16)
    assert model.unfinished == 0


@pytest.mark.parametrize("seed", [3, None])
async def test_a_candidate_whose_server_dies_is_sampled_elsewhere_if_it_will_be_the_same(
    server: ModelServer, second: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int], seed: int | None
) -> None:
    """With a seed its checkpoints go on where they were; without one, nothing of it may have been used."""

    def dies(seen: Seen) -> Reply:
        return Reply(events=[completion(seen, ids[:3], None)], drop=True)

    def healthy(seen: Seen) -> Reply:
        return policy(lambda body: ids)(seen)

    model = engine(tokenizer, server, second)
    server.script = second.script = lambda seen: (dies if len(server.posts()) + len(second.posts()) == 1 else healthy)(
        seen
    )
    seen: list[int] = []
    handle = CandidateHandle((2, 5), lambda place, _: seen.append(place))
    sampled = model.sample(prompt, Sampling(max_tokens=99, seed=seed), 0, handle)
    if seed is None:
        with pytest.raises(CandidateFailed, match="within an answer that cannot be repeated"):
            await sampled
        assert seen == [0]
        server.seen.clear()
        second.seen.clear()
        sampled = model.sample(prompt, Sampling(max_tokens=99), 0, CandidateHandle())
    assert (await sampled).text == TEXT
    assert seen == ([0] if seed is None else [0, 1])
    assert len(server.posts()) + len(second.posts()) == 2


@pytest.mark.parametrize(
    "body",
    [
        lambda seen: {},
        lambda seen: completion(seen, ["7"]),  # type: ignore[list-item]
        lambda seen: completion(seen, [-7]),
        lambda seen: completion(seen, [7], None),
        lambda seen: completion(seen, [7], "abort"),
        lambda seen: completion(seen, [7], "stop", prompt_token_ids=[1]),
        lambda seen: {"error": {"message": "secret"}},
    ],
)
async def test_an_answer_that_is_none_is_never_one(
    server: ModelServer, second: ModelServer, tokenizer: Tokenizer, prompt: Prompt, body: Any
) -> None:
    model = engine(tokenizer, server, second)
    server.script = lambda seen: Reply(body(seen)) if seen.method == "POST" else models()
    for place in range(4):
        assert (await model.sample(prompt, Sampling(max_tokens=9), place)).text == TEXT
    second.script = server.script
    with pytest.raises((PolicyUnavailable, CandidateFailed)) as told:
        await model.sample(prompt, Sampling(max_tokens=9), 0)
    assert "secret" not in str(told.value)


def silent(seen: Seen) -> Reply:
    return models() if seen.method == "GET" else Reply(completion(seen, [7], token_ids=None))


def other_tokenizer(seen: Seen) -> Reply:
    return Reply({"tokens": [1, 2, 3]}) if seen.path == "/tokenize" else policy(lambda body: [7])(seen)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (lambda seen: Reply({}, 404), "is no policy: /v1/completions has status 404"),
        (silent, "does not return token ids"),
        (other_tokenizer, "is not the one given; name the served model's in --policy-tokenizer"),
    ],
)
async def test_a_server_that_cannot_be_the_policy_is_refused_at_the_start(
    server: ModelServer, tokenizer: Tokenizer, script: Any, reason: str
) -> None:
    server.script = script
    with pytest.raises(CheckpointError, match=reason):
        engine(tokenizer, server)


async def test_a_longer_context_than_the_servers_is_refused(server: ModelServer, tokenizer: Tokenizer) -> None:
    start = options("policy", checkpoint=str(POLICY), context=4096)
    with pytest.raises(CheckpointError, match=r"its server was started with max_model_len 2048"):
        start_policy(start, pool("completions", server), tokenizer)


async def test_ids_of_generation_config_end_an_answer(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int], tmp_path: Path
) -> None:
    shutil.copy(POLICY / "config.json", tmp_path)
    (end,) = tokenizer.encode_continuation("x")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    model = start_policy(options("policy", checkpoint=str(tmp_path)), pool("completions", server), tokenizer)
    sampled: Sequence[int] = [*ids[:-1], end]
    server.script = policy(lambda body: sampled)
    assert (await model.sample(prompt, Sampling(max_tokens=99), 0)).text == TEXT


async def test_a_long_answer_with_all_its_log_probabilities_is_read(
    server: ModelServer, tokenizer: Tokenizer, prompt: Prompt, ids: list[int]
) -> None:
    """What was more than 4 MiB was refused, which 5,200 tokens with 20 alternatives are."""
    count, logprob = 6000, -12.345678901234567
    top = {f"token_id:{128000 + place}": logprob for place in range(20)}
    logprobs = {
        "tokens": [f"token_id:{ids[0]}"] * count,
        "token_logprobs": [logprob] * count,
        "text_offset": list(range(count)),
        "top_logprobs": [{f"token_id:{ids[0]}": logprob, **top}] * count,
    }
    model = engine(tokenizer, server)
    server.script = lambda seen: Reply(completion(seen, ids[:1] * count, "length", logprobs=logprobs))
    found = await model.sample(prompt, Sampling(max_tokens=count, alternatives=20), 0)
    assert found.tokens == count
    assert found.logprobs is not None
    assert len(found.logprobs) == count
    assert len(server.posts()) == 1
