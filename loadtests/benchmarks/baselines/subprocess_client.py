"""Peers that are libraries: each runs in a process of its own and is asked with lines of JSON over its standard input and output.

A line to it is an object with a `number`; it answers in any order with a line that has the same `number` and either `text`, `tokens` and
`score_tail`, or `error`. Its first line is `{"ready": true}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from winnow.loadtests.benchmarks.baselines.prompts import Renderer
from winnow.loadtests.benchmarks.baselines.servers import START_SECONDS, Child, Command, started
from winnow.loadtests.types import Ask, Reply


@dataclass(slots=True)
class Companion:
    """A child that answers lines; a `System`."""

    child: Child
    render: Renderer
    name: str
    _waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _reader: asyncio.Task[None] | None = None
    _sent: int = 0

    async def ask(self, ask: Ask) -> Reply:
        """Answer one request."""
        try:
            answer = await self._exchange(ask)
        except OSError as error:
            return Reply("failed", time.perf_counter(), error=f"{self.name}: {error}")
        if "error" in answer:
            return Reply("failed", time.perf_counter(), error=answer["error"])
        return Reply(
            "answered",
            time.perf_counter(),
            text=str(answer["text"]).strip(),
            candidates=ask.candidates,
            sampled_tokens=answer["tokens"],
            score_tail=answer["score_tail"],
        )

    async def _exchange(self, ask: Ask) -> dict[str, Any]:
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        if self._reader.done():
            raise ConnectionError("its process has ended")
        prompt = self.render(ask)
        self._sent += 1
        number, line = self._sent, {"number": self._sent, "ids": prompt.ids, "prompt": prompt.text}
        line |= {"is_safety": prompt.is_safety, "candidates": ask.candidates, "max_tokens": ask.max_tokens}
        line |= {"seed": ask.seed, "options": dict(ask.options)}
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
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self.child.process.stdout)
        while line := await stream.readline():
            answer = json.loads(line)
            if future := self._waiting.get(answer["number"]):
                future.set_result(answer)
        for future in self._waiting.values():
            future.set_exception(ConnectionError("its process has ended"))


@contextlib.contextmanager
def companion(command: Command, render: Renderer, seconds: float = START_SECONDS) -> Iterator[Companion]:
    """Start a companion and yield it once it is ready.

    Raises:
        ServerFailed: it ended or said nothing for `seconds`.
    """
    with started(command, with_pipes=True) as child:
        assert child.process.stdout
        heard, _, _ = select.select([child.process.stdout], [], [], seconds)
        if not heard or b"ready" not in child.process.stdout.readline():
            raise child.failure("did not get ready")
        yield Companion(child, render, command.name)
