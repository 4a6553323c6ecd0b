"""Streams: events match the answer however the bytes are chunked, and a broken stream never passes for a whole one."""

from __future__ import annotations

from contextlib import aclosing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients.any_client import Open
from tests.clients.scripts import (
    REPORT,
    USAGE,
    Chunks,
    Script,
    chunk,
    completion,
    error,
    progress,
    reply,
    stream,
    streaming,
)
from winnow.clients import (
    Answer,
    ContextLengthExceeded,
    EngineDead,
    Overloaded,
    Piece,
    Progress,
    RefusedByServer,
    StreamBroken,
    TimedOut,
)
from winnow.clients.schema import ChatLogprobs, ChatRequest, ChunkChoice, Delta, SampledLogprob
from winnow.clients.streams import StreamedAnswer

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT, min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 400))
def test_a_stream_has_the_same_answer_as_a_plain_response(texts: list[str], size: int, step: int) -> None:
    """Chunks may end anywhere: inside an event, a line or a character."""
    data = b"".join(stream(*texts, size=size))
    streamed = StreamedAnswer("req_1")
    events = [event for start in range(0, len(data), step) for event in streamed.feed(data[start : start + step])]
    assert streamed.is_done
    assert events[-1] == Answer(completion(*texts), "req_1")
    for index, text in enumerate(texts):
        pieces = [event.text for event in events if isinstance(event, Piece) and event.index == index]
        assert "".join(pieces) == text
        assert all(pieces)


async def test_progress_then_pieces_then_the_answer(opening: Open) -> None:
    script = Script([streaming(stream("Paris."), **{"x-request-id": "req_server"})])
    async with opening(script) as client:
        events = [event async for event in client.events("hi", candidates=3)]
    assert [type(event) for event in events] == [Progress, Progress, Piece, Piece, Answer]
    assert [event.best_so_far for event in events if isinstance(event, Progress)] == [None, 0.75]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.report, answer.usage, answer.request_id) == ("Paris.", REPORT, USAGE, "req_server")


@pytest.mark.parametrize("progress", [True, False])
async def test_the_request_of_a_stream(opening: Open, progress: bool) -> None:
    script = Script([streaming(stream())])
    async with opening(script) as client:
        _ = [event async for event in client.events("hi", progress=progress, is_safety=False)]
    body = ChatRequest.model_validate_json(script.requests[0].content)
    assert body.stream
    assert body.stream_options
    assert body.stream_options.include_usage
    assert (bool(body.options.progress), body.options.is_safety) == (progress, False)


def test_logprobs_are_concatenated() -> None:
    def part(token: str) -> bytes:
        logprobs = ChatLogprobs(content=[SampledLogprob(token=token, logprob=-1, bytes=None, top_logprobs=[])])
        return chunk(ChunkChoice(index=0, delta=Delta(content=token), logprobs=logprobs))

    end = chunk(ChunkChoice(index=0, delta=Delta(), finish_reason="stop"), report=REPORT, usage=USAGE)
    *_, answer = StreamedAnswer("req_1").feed(part("a") + part("b") + end + b"data: [DONE]\n\n")
    assert isinstance(answer, Answer)
    logprobs = answer.completion.choices[0].logprobs
    assert logprobs
    assert [item.token for item in logprobs.content] == ["a", "b"]


@pytest.mark.parametrize("missing", [b'"finish_reason":"stop"', b'"winner"', b'"usage"', b"[DONE]"])
async def test_a_stream_with_a_part_missing_is_broken(opening: Open, missing: bytes) -> None:
    events = [event for event in stream() if missing not in event]
    async with opening(Script([streaming(events)])) as client:
        with pytest.raises(StreamBroken):
            _ = [event async for event in client.events("hi")]


@pytest.mark.parametrize("kept", range(1, len(stream())))
async def test_a_stream_cut_off_anywhere_is_broken(opening: Open, kept: int) -> None:
    """After the last event a lost connection does no harm."""
    lost = httpx.ReadError("reset by peer")
    async with opening(Script([streaming([*stream()[:kept], lost])])) as client:
        with pytest.raises(StreamBroken, match="reset by peer"):
            _ = [event async for event in client.events("hi")]
    assert not client.pauses
    async with opening(Script([streaming([*stream(), lost])])) as client:
        assert isinstance([event async for event in client.events("hi")][-1], Answer)


async def test_silence_in_a_stream_is_a_timeout(opening: Open) -> None:
    async with opening(Script([streaming([*stream()[:3], httpx.ReadTimeout("")])])) as client:
        with pytest.raises(TimedOut):
            _ = [event async for event in client.events("hi")]


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n", b'data: {"id": 1}\n\n'])
async def test_an_event_that_winnow_never_sends(opening: Open, garbage: bytes) -> None:
    async with opening(Script([streaming([garbage, *stream()])])) as client:
        with pytest.raises(StreamBroken):
            _ = [event async for event in client.events("hi")]


@pytest.mark.parametrize(("code", "kind"), [("engine_dead", EngineDead), (None, RefusedByServer)])
async def test_an_error_in_the_stream_is_raised(opening: Open, code: str | None, kind: type[RefusedByServer]) -> None:
    failure = f"data: {error(code, 'it died').model_dump_json()}\n\n".encode()
    script = Script([streaming([stream()[0], progress(1), failure, b"data: [DONE]\n\n"])])
    async with opening(script) as client, aclosing(client.events("hi", request_id="mine")) as events:
        assert isinstance(await anext(events), Progress)
        with pytest.raises(kind, match="it died") as failed:
            await anext(events)
    assert (failed.value.status, failed.value.code, failed.value.request_id) == (None, code, "mine")
    assert len(script.requests) == 1


async def test_a_stream_refused_at_the_start_is_retried(opening: Open) -> None:
    busy = reply(error("overloaded"), 429, retry_after="2")
    script = Script([httpx.ConnectError("refused"), busy, streaming(stream())])
    async with opening(script) as client:
        assert isinstance([event async for event in client.events("hi")][-1], Answer)
    assert client.pauses[1] == 2
    script = Script([busy])
    async with opening(script, max_retries=1) as client:
        with pytest.raises(Overloaded):
            _ = [event async for event in client.events("hi")]
    assert len(script.requests) == 2


async def test_a_plain_refusal_of_a_stream(opening: Open) -> None:
    refused = reply(error("context_length_exceeded", "too long", "messages"), 400)
    async with opening(Script([refused])) as client:
        with pytest.raises(ContextLengthExceeded) as failed:
            _ = [event async for event in client.events("hi")]
    assert (failed.value.status, failed.value.param) == (400, "messages")


@pytest.mark.parametrize("taken", [1, 3])
async def test_leaving_early_closes_the_response(opening: Open, taken: int) -> None:
    body = Chunks(stream())
    script = Script([httpx.Response(200, stream=body)])
    async with opening(script) as client, aclosing(client.events("hi")) as events:
        for _ in range(taken):
            await anext(events)
        assert not body.is_closed
        await events.aclose()
        assert body.is_closed
