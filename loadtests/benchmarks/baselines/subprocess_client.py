"""Baselines that are libraries: each runs in a driver process, which takes requests as lines of JSON.

A line on the driver's standard input holds a `number`, a `prompt` (the fields of `Rendered`) and a `request` (those of
`Request`). It answers in any order, on standard output, with a line that has the same `number` and either
`text`, `tokens` and `score_tail`, or `error`. Its first line is `{"ready": true}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from winnow.loadtests.benchmarks.baselines.prompts import Rendered, Renderer
from winnow.loadtests.benchmarks.processes import START_SECONDS, Child, Command, started
from winnow.loadtests.types import Reply, Request


@dataclass(slots=True)
class SubprocessTarget:
    """A driver process; a `Target`, and a context that ends reading from it."""

    child: Child
    render: Renderer
    name: str
    _waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _reader: asyncio.Task[None] | None = None
    _sent: int = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def send(self, request: Request) -> Reply:
        """Answer one request."""
        try:
            answer = await self._exchange(request)
        except OSError as error:
            return Reply("failed", time.perf_counter(), error=f"{self.name}: {error}")
        if "error" in answer:
            return Reply("failed", time.perf_counter(), error=answer["error"])
        return Reply(
            "answered",
            time.perf_counter(),
            text=str(answer["text"]),
            candidates=request.candidates,
            sampled_tokens=answer["tokens"],
            score_tail=answer["score_tail"],
        )

    async def _exchange(self, request: Request) -> dict[str, Any]:
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        if self._reader.done():
            raise ConnectionError("its process has ended")
        self._sent += 1
        number = self._sent
        prompt = dataclasses.asdict(self.render(request))
        line = {"number": number, "prompt": prompt, "request": dataclasses.asdict(request)}
        self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self.child.process.stdin
        try:
            self.child.process.stdin.write(json.dumps(line).encode() + b"\n")
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    async def _read(self) -> None:
        stream = asyncio.StreamReader(limit=2**24)
        protocol = asyncio.StreamReaderProtocol(stream)
        assert self.child.process.stdout
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self.child.process.stdout)
        with contextlib.closing(transport):
            while line := await stream.readline():
                answer = json.loads(line)
                if future := self._waiting.get(answer["number"]):
                    future.set_result(answer)
        for future in self._waiting.values():
            future.set_exception(ConnectionError("its process has ended"))


@contextlib.contextmanager
def started_target(command: Command, render: Renderer, seconds: float = START_SECONDS) -> Iterator[SubprocessTarget]:
    """Start a driver and yield it once it is ready.

    Raises:
        ServerFailed: it ended, or was not ready within `seconds`.
    """
    with started(command, with_pipes=True) as child:
        assert child.process.stdout
        readable, _, _ = select.select([child.process.stdout], [], [], seconds)
        if not readable or b"ready" not in child.process.stdout.readline():
            raise child.failure("did not get ready")
        yield SubprocessTarget(child, render, command.name)


def parsed(line: str | bytes) -> tuple[int, Rendered, Request]:
    """Return the number, prompt and request of a line; the driver's side."""
    order = json.loads(line)
    return order["number"], Rendered(**order["prompt"]), Request(**order["request"])


def write_line(**fields: Any) -> None:
    """Write a line to standard output; the driver's side."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
