from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.clients.scripts import MODELS, REPORT, Chunks, completion, error, reply, stream, streaming
from tests.fakes import ScriptedPolicy
from tests.live import ScriptedServer, scripted
from tests.loadtests.targets import request
from winnow.loadtests.errors import LoadTestError, ScenarioError
from winnow.loadtests.target import MAX_ERROR, OpenAITarget, open_target
from winnow.loadtests.types import Reply, Request
from winnow.models.tokenizer import Tokenizer

URL = "http://winnow.test/v1"
KEY = "wk-3f9a5c0d77"


class Recorded(httpx.AsyncBaseTransport):
    """A transport that answers every request alike and records the bodies."""

    def __init__(self, respond: Callable[[httpx.Request], httpx.Response]) -> None:
        self.respond = respond
        self.bodies: list[Any] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(await request.aread() or b"null"))
        return self.respond(request)


async def answer(
    respond: Callable[[httpx.Request], httpx.Response], asked: Request, **options: Any
) -> tuple[Reply, Any]:
    transport = Recorded(respond)
    async with OpenAITarget(URL, **{"model": "m", "dialect": "winnow", "transport": transport, **options}) as target:
        return await target.send(asked), transport.bodies[0]


async def test_winnow_gets_best_of_n_and_its_report_is_read() -> None:
    asked = request(7, best_of_n={"combiner": "safe_first"}, temperature=0.5)
    found, body = await answer(lambda _: reply(completion("Paris.")), asked)
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 16, "seed": 7,
        "temperature": 0.5, "best_of_n": {"combiner": "safe_first", "candidates": 4},
    }  # fmt: skip
    assert (found.kind, found.text, found.candidates, found.sampled_tokens) == ("answered", "Paris.", 3, 6)
    assert (found.winner_tokens, found.score_tail) == (REPORT.winner_tokens, 0.003)
    assert found.details["timings_ms"]["total"] == 4
    assert found.details["winner_combined"] == 0.75
    assert "scored" not in found.details
    assert found.first_byte is not None
    assert found.first_byte <= found.done


async def test_a_range_of_candidates_takes_precedence_over_k() -> None:
    bounds = {"min": 2, "max": 4}
    _, body = await answer(lambda _: reply(completion("Paris.")), request(best_of_n={"candidates": bounds}))
    assert body["best_of_n"] == {"candidates": bounds}


@pytest.mark.parametrize("scored", [None, [], ["a"], [{"index": 1, "combined": 0.5}], [{"index": 0, "combined": "x"}]])
async def test_a_winners_reward_may_be_missing(scored: object) -> None:
    body = {"choices": [{"message": {"content": "a"}}], "best_of_n": {"winner": 0, "scored": scored}}
    found, _ = await answer(lambda _: httpx.Response(200, json=body), request())
    assert found.kind == "answered"
    assert "winner_combined" not in found.details


async def test_other_servers_get_n_and_need_no_report() -> None:
    plain = {"choices": [{"index": 1, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}}]}
    usage = {"usage": {"completion_tokens": 9, "prompt_tokens": 5}}
    found, body = await answer(
        lambda _: httpx.Response(200, json=plain | usage), request(candidates=2), dialect="openai"
    )
    assert body["n"] == 2
    assert "best_of_n" not in body
    assert (found.kind, found.text, found.candidates, found.sampled_tokens, found.winner_tokens) == (
        "answered",
        "a",
        2,
        9,
        None,
    )
    assert found.score_tail is None


async def test_the_only_choice_is_the_winner() -> None:
    body = {"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": 9}}
    found, _ = await answer(lambda _: httpx.Response(200, json=body), request(candidates=1), dialect="openai")
    assert (found.sampled_tokens, found.winner_tokens) == (9, 9)


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"completion_tokens": None}}])
async def test_tokens_without_usage_are_unknown(usage: dict[str, Any]) -> None:
    body = {"choices": [{"message": {"content": "a"}}], **usage}
    found, _ = await answer(lambda _: httpx.Response(200, json=body), request(candidates=1), dialect="openai")
    assert (found.kind, found.candidates, found.sampled_tokens, found.winner_tokens) == ("answered", 1, None, None)


async def test_this_machines_limits_are_not_blamed_on_the_server() -> None:
    def starve(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("All connection attempts failed") from OSError(errno.EMFILE, "Too many open files")

    def starve_at_import(_: httpx.Request) -> httpx.Response:
        raise OSError(errno.EMFILE, "Too many open files", "httpcore/__init__.py")

    for fault in (starve, starve_at_import):
        found, _ = await answer(fault, request())
        assert found.kind == "failed"
        assert "this machine's limit of open files" in (found.error or "")
    with pytest.raises(LoadTestError, match="ulimit -n"):
        await open_target(URL, transport=Recorded(starve))


async def test_a_servers_name_cannot_control_the_terminal() -> None:
    models = Recorded(lambda _: httpx.Response(200, json={"data": [{"id": "\x1b[2Jm\x9b"}]}))
    async with await open_target(URL, transport=models) as target:
        assert target.name.isprintable()
        assert target.model == "\x1b[2Jm\x9b"


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_stream_may_be_cut_anywhere(size: int) -> None:
    data = b"".join(stream("Paris, says U+2028: \u2028."))
    cut = [data[start : start + size] for start in range(0, len(data), size)]
    found, body = await answer(lambda _: streaming(cut), request(), stream=True)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert (found.kind, found.text, found.sampled_tokens) == ("answered", "Paris, says U+2028: \u2028.", 6)
    assert found.first_byte is not None
    assert found.first_byte <= found.done


@pytest.mark.parametrize(
    ("response", "kind", "details"),
    [
        (
            reply(error("overloaded"), 429, Retry_After="3"), "refused",
            {"status": 429, "code": "overloaded", "retry_after": 3.0},
        ),
        (reply(error(None), 429), "refused", {"status": 429}),
        (reply(error("shutting_down"), 503), "refused", {"status": 503, "code": "shutting_down"}),
        (httpx.Response(503, headers={"Retry-After": "1"}), "refused", {"status": 503, "retry_after": 1.0}),
        (httpx.Response(503), "failed", {"status": 503}),
        (reply(error("engine_dead"), 503), "failed", {"status": 503, "code": "engine_dead"}),
        (reply(error("internal_error"), 500), "failed", {"status": 500, "code": "internal_error"}),
        (reply(error("invalid_request"), 400), "failed", {"status": 400, "code": "invalid_request"}),
    ],
)  # fmt: skip
async def test_a_refusal_is_distinguished_from_a_failure(
    response: httpx.Response, kind: str, details: dict[str, Any]
) -> None:
    def fresh(_: httpx.Request) -> httpx.Response:
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    found, _ = await answer(fresh, request())
    assert (found.kind, dict(found.details)) == (kind, details)
    assert found.error


@pytest.mark.parametrize(
    ("chunks", "is_stream", "words"),
    [
        ([b"<html>"], False, "no chat completion"),
        ([b"{}"], False, "before it was whole"),
        (stream("Paris.")[:-1], True, "before it was whole"),
        ([b"data: {\n\n"], True, "no chat completion"),
        (
            [*stream("Paris.")[:3], b'data: {"error": {"message": "engine died"}}\n\n', b"data: [DONE]\n\n"],
            True,
            "engine died",
        ),
        ([*stream("Paris.")[:3], httpx.ReadError("reset")], True, "reset"),
        ([httpx.ReadTimeout("slow")], False, "in time"),
    ],
)
async def test_an_incomplete_answer_has_failed(
    chunks: list[bytes | BaseException], is_stream: bool, words: str
) -> None:
    found, _ = await answer(lambda _: streaming(chunks), request(), stream=is_stream)
    assert found.kind == "failed"
    assert words in (found.error or "")


async def test_an_endless_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow.loadtests.completions.MAX_BYTES", 1000)
    found, _ = await answer(lambda _: streaming([b" " * 600] * 2), request())
    assert found.kind == "failed"


async def test_a_failed_connection_is_a_reply() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    found, _ = await answer(refuse, request())
    assert (found.kind, found.error) == ("failed", f"no server answers at {URL}: refused")


async def test_an_error_is_short_printable_and_without_the_key() -> None:
    told = reply(error("internal_error", f"\x1b[31m{KEY} is bad. " + "x" * 5000), 500)
    found, _ = await answer(lambda _: told, request(), api_key=KEY)
    assert found.error
    assert KEY not in found.error
    assert found.error.isprintable()
    assert len(found.error) <= MAX_ERROR


async def test_no_key_is_shown() -> None:
    async with OpenAITarget(URL, model="m", dialect="winnow", api_key=KEY) as target:
        assert KEY not in repr(target)
        assert KEY not in str(target.facts)


async def test_leaving_closes_the_connection() -> None:
    class Endless(Chunks):
        async def __aiter__(self) -> Any:
            yield b"data: "
            await asyncio.Event().wait()

    body = Endless([])
    found, _ = await answer(lambda _: httpx.Response(200, stream=body), request(leave_after=0.01), stream=True)
    assert found.kind == "left"
    assert body.is_closed


@pytest.mark.parametrize(("owner", "dialect"), [("winnow", "winnow"), ("vllm", "openai"), (None, "openai")])
async def test_model_and_dialect_are_detected(owner: str | None, dialect: str) -> None:
    models = Recorded(lambda _: httpx.Response(200, json={"data": [{"id": "served", "owned_by": owner}]}))
    async with await open_target(URL, transport=models) as target:
        assert (target.model, target.dialect, target.name) == ("served", dialect, "served at winnow.test")
    async with await open_target(URL, model="m", dialect="openai", taken=["m at winnow.test"]) as target:
        assert target.name == "m at winnow.test (again)"


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (reply(error("invalid_api_key", "a key is needed"), 401), "a key is needed"),
        (httpx.Response(200, text="hello"), "lists no models"),
        (httpx.Response(200, json={"data": []}), "lists no model"),
    ],
)
async def test_a_server_without_a_model_list_is_an_error(response: httpx.Response, words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        await open_target(URL, transport=Recorded(lambda _: response))
    with pytest.raises(ScenarioError, match="/v1"):
        await open_target("http://winnow.test")


async def test_a_real_winnow_over_loopback(tokenizer: Tokenizer) -> None:
    policy = ScriptedPolicy()
    with ScriptedServer.start(scripted(tokenizer, policy)) as server:
        for is_stream in (False, True):
            async with await open_target(f"{server.url}/v1", stream=is_stream) as target:
                assert (target.model, target.dialect) == (MODELS.data[0].id, "winnow")
                found = await asyncio.gather(*(target.send(request(number)) for number in range(40)))
            assert [(item.kind, item.candidates) for item in found] == [("answered", 4)] * 40
            tokens = len(policy.answers(0)) + 1  # EOS
            assert all(item.score_tail is not None and item.winner_tokens == tokens for item in found)


async def test_leaving_clients_free_the_server_for_the_remaining_ones(tokenizer: Tokenizer) -> None:
    policy = ScriptedPolicy(hold=asyncio.Event())
    with ScriptedServer.start(scripted(tokenizer, policy)) as server:
        async with await open_target(f"{server.url}/v1") as target:
            stayers = [asyncio.create_task(target.send(request(number))) for number in range(3)]
            left = await asyncio.gather(*(target.send(request(number, leave_after=0.05)) for number in range(3, 20)))
            assert policy.hold
            server.call(policy.hold.set)
            stayed = await asyncio.gather(*stayers)
            assert (await target.send(request(20))).kind == "answered"
    assert {item.kind for item in left} == {"left"}
    assert [item.kind for item in stayed] == ["answered"] * 3
