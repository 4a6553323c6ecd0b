"""A scripted server for the clients' tests: wire bodies, and streams in arbitrary chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from winnow.clients.schema import (
    AnswerMessage,
    BestOfNReport,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    ErrorBody,
    ErrorDetail,
    ModelCard,
    ModelList,
    Progress,
    ProgressReport,
    Scored,
    TimingsMs,
    Usage,
)

REPORT = BestOfNReport(
    candidates=3,
    requested=3,
    finished=3,
    winner=2,
    is_safety=False,
    combiner="llama2",
    winner_tokens=2,
    all_unsafe=False,
    safe_passed_over=False,
    scored=[
        Scored(
            index=index,
            safety=0.9,
            helpfulness=reward,
            combined=reward,
            branch="helpful",
            rank=2 - index,
            finish_reason="stop",
            tokens=2,
        )
        for index, reward in enumerate((0.25, 0.5, 0.75))
    ],
    failed=[],
    timings_ms=TimingsMs(queue=0, first_candidate=1, generate=2, score_tail=3, total=4),
)
USAGE = Usage(prompt_tokens=5, completion_tokens=6, total_tokens=11)
MODELS = ModelList(data=[ModelCard(id="winnow-demo", created=1, max_model_len=256)])


def completion(*texts: str) -> ChatCompletion:
    """Return a body whose choices have these texts."""
    choices = [
        Choice(index=index, message=AnswerMessage(content=text), finish_reason="stop")
        for index, text in enumerate(texts or ("Paris.",))
    ]
    return ChatCompletion(
        id="chatcmpl-1", created=1, model="winnow-demo", choices=choices, usage=USAGE, best_of_n=REPORT
    )


def chunk(
    *choices: ChunkChoice, report: BestOfNReport | ProgressReport | None = None, usage: Usage | None = None
) -> bytes:
    """Return one event of a stream."""
    body = ChatCompletionChunk(
        id="chatcmpl-1", created=1, model="winnow-demo", choices=list(choices), best_of_n=report, usage=usage
    )
    return f"data: {body.model_dump_json()}\n\n".encode()


def progress(scored: int) -> bytes:
    """Return an event with the number of candidates scored, of three."""
    best = 0.25 * scored if scored else None
    return chunk(
        report=ProgressReport(progress=Progress(finished=scored, scored=scored, candidates=3, best_so_far=best))
    )


def stream(*texts: str, size: int = 3) -> list[bytes]:
    """Return the events of a stream whose choices have these texts, as the server sends them."""
    texts = texts or ("Paris.",)
    opening = [ChunkChoice(index=index, delta=Delta(role="assistant", content="")) for index in range(len(texts))]
    pieces = [
        chunk(ChunkChoice(index=index, delta=Delta(content=text[start : start + size])))
        for index, text in enumerate(texts)
        for start in range(0, len(text), size)
    ]
    ends = [ChunkChoice(index=index, delta=Delta(), finish_reason="stop") for index in range(len(texts))]
    return [
        chunk(*opening),
        b": keep-alive\n\n",
        progress(0),
        progress(3),
        *pieces,
        chunk(*ends),
        chunk(report=REPORT),
        chunk(usage=USAGE),
        b"data: [DONE]\n\n",
    ]


def error(code: str | None, message: str = "no", param: str | None = None) -> ErrorBody:
    """Return an error body."""
    return ErrorBody(error=ErrorDetail(message=message, type="t", param=param, code=code))


def reply(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    """Return a response with a wire body; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=body.model_dump_json(), headers=named)


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives in these chunks; an exception among them is raised in its place."""

    def __init__(self, chunks: Sequence[bytes | BaseException]) -> None:
        self.chunks = chunks
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for item in self.chunks:
            if isinstance(item, BaseException):
                raise item
            yield item

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for item in self:
            yield item

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


def streaming(chunks: Sequence[bytes | BaseException], **headers: str) -> httpx.Response:
    """Return a stream that arrives in these chunks."""
    return httpx.Response(200, stream=Chunks(chunks), headers={"content-type": "text/event-stream", **headers})


@dataclass
class Script:
    """A transport that returns the replies in turn, the last one forever, and records the requests.

    `/v1/models` is answered besides, and counted in `listed`.
    """

    replies: Sequence[httpx.Response | Exception]
    requests: list[httpx.Request] = field(default_factory=list)
    listed: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/v1/models"):
            self.listed += 1
            return reply(MODELS)
        self.requests.append(request)
        answer = self.replies[min(len(self.requests), len(self.replies)) - 1]
        if isinstance(answer, Exception):
            raise answer
        body = answer.stream if isinstance(answer.stream, Chunks) else Chunks([answer.content])
        return httpx.Response(answer.status_code, headers=answer.headers, stream=body)
