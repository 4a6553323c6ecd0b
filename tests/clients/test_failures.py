"""Both clients, by the same tests: retries, exceptions, and keys that are never shown."""

from __future__ import annotations

import traceback

import httpx
import pytest

from tests.clients.any_client import Kind, Open
from tests.clients.scripts import Script, completion, error, reply
from winnow.clients import (
    Client,
    ConnectionFailed,
    InvalidKey,
    Overloaded,
    RefusedByServer,
    ServerError,
    TimedOut,
    UnreadableAnswer,
)

REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
KEY = "sk-secret-0123456789"


@pytest.mark.parametrize(
    "body", ["<html>Welcome</html>", "{}", "[]", completion().model_copy(update={"choices": []}).model_dump_json()]
)
async def test_a_success_that_is_not_winnows(opening: Open, body: str) -> None:
    async with opening(Script([httpx.Response(200, text=body)])) as client:
        with pytest.raises(UnreadableAnswer):
            await client.answer("hi")


@pytest.mark.parametrize("failure", [REFUSED, httpx.ReadError("reset"), reply(error("engine_dead"), 503)])
async def test_transient_failures_are_retried_with_the_same_id(
    opening: Open, failure: httpx.Response | Exception
) -> None:
    script = Script([failure, failure, reply(completion())])
    async with opening(script) as client:
        assert (await client.answer("hi")).text == "Paris."
    assert len({request.headers["x-request-id"] for request in script.requests}) == 1
    assert len({request.content for request in script.requests}) == 1
    assert len(script.requests) == 3
    assert 0.5 <= client.pauses[0] <= 1 <= client.pauses[1] <= 2


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_no_more_retries_than_allowed(opening: Open, most: int) -> None:
    script = Script([REFUSED])
    async with opening(script, max_retries=most) as client:
        with pytest.raises(ConnectionFailed, match=r"no server answers at http://winnow\.test/v1"):
            await client.answer("hi", model="m")
    assert len(script.requests) == most + 1
    assert len(client.pauses) == most


async def test_a_silent_server_is_not_retried(opening: Open) -> None:
    """It may still be working: a second request would double its load."""
    script = Script([httpx.ReadTimeout("slow")])
    async with opening(script) as client:
        with pytest.raises(TimedOut):
            await client.answer("hi")
    assert len(script.requests) == 1


async def test_retry_after_is_honoured(opening: Open) -> None:
    busy = reply(error("overloaded", "the queue is full"), 429, retry_after="7")
    async with opening(Script([busy, reply(completion())])) as client:
        await client.answer("hi")
    assert client.pauses == [7]


async def test_a_long_retry_after_is_raised_at_once(opening: Open) -> None:
    script = Script([reply(error("overloaded", "the queue is full"), 429, retry_after="61")])
    async with opening(script) as client:
        with pytest.raises(Overloaded, match="the queue is full") as busy:
            await client.answer("hi")
    assert busy.value.retry_after == 61
    assert len(script.requests) == 1


@pytest.mark.parametrize(("status", "says", "tries"), [(500, "false", 1), (400, "true", 3), (418, "maybe", 1)])
async def test_the_server_decides_what_is_worth_a_retry(opening: Open, status: int, says: str, tries: int) -> None:
    script = Script([reply(error(None), status, x_should_retry=says)])
    async with opening(script) as client:
        with pytest.raises(RefusedByServer):
            await client.answer("hi")
    assert len(script.requests) == tries


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), ServerError),
        (httpx.Response(503, json={"detail": "no upstream"}), ServerError),
        (httpx.Response(401, text=""), InvalidKey),
        (httpx.Response(429, json=["slow down"]), Overloaded),
        (httpx.Response(404, json={"error": "no route"}), RefusedByServer),
        (httpx.Response(307, headers={"location": "/elsewhere"}), RefusedByServer),
    ],
)
async def test_errors_of_a_proxy(opening: Open, response: httpx.Response, kind: type[RefusedByServer]) -> None:
    async with opening(Script([response])) as client:
        with pytest.raises(RefusedByServer, match=f"the server answered {response.status_code} ") as refused:
            await client.answer("hi", request_id="mine")
    assert type(refused.value) is kind
    assert (refused.value.status, refused.value.code, refused.value.request_id) == (response.status_code, None, "mine")


@pytest.mark.parametrize("failure", [REFUSED, reply(error("invalid_api_key", "a valid API key is needed"), 401)])
async def test_keys_are_never_shown(opening: Open, failure: httpx.Response | Exception) -> None:
    async with opening(Script([failure]), api_key=KEY) as client:
        with pytest.raises((ConnectionFailed, InvalidKey)) as failed:
            await client.answer("hi")
        shown = [repr(client.client), repr(vars(client.client)), str(vars(client.client._connection))]
    shown += [*traceback.format_exception(failed.value), repr(failed.value), str(vars(failed.value))]
    assert not [text for text in shown if KEY in text]


@pytest.mark.parametrize("key", ["sk-secret\r\nX-Evil: 1", "sk secret", "sk-sécret", ""])
def test_a_malformed_key_is_rejected_without_showing_it(client_kind: Kind, key: str) -> None:
    with pytest.raises(ValueError) as refused:
        client_kind(api_key=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://h", "http://h/v2", "h/v1", "ftp://h/v1", "http://u:secret@h/v1", "http://h/v1?k=secret", "http://h:x/v1"],
)
def test_a_malformed_address_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as refused:
        Client(url)
    assert "secret" not in str(refused.value)
