"""A scripted model server over HTTP: `/classify`, completions, chat completions, `/v1/models`, and their faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.live import wait_until
from winnow.models.engines.addresses import parse_address, parse_addresses
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.remote import Link, RemoteModel
from winnow.models.types import Prompt

KEY = "sk-hidden-from-everybody"


class Ids:
    """A reader whose answers are their lengths, in ids."""

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        return [*prompt.token_ids, len(answer)]

    def shortened(self, prompt: Prompt, answer: str, context: int) -> None:
        return None

    def reread(self, prompt: Prompt) -> int:
        return 0


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """An answer: a status, JSON or raw bytes, and headers; sent once `hold` is set.

    A stream of `events` comes first, without a length, as a server sends that closes the connection behind it.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    drop: bool = False
    """Close the connection instead; behind the events, if there are any."""
    events: Sequence[Any] = ()


Script = Callable[[Seen], Reply]


def models(name: str = "rm", root: str | None = None, context: int | None = 2048) -> Reply:
    """The list of one model, as vLLM sends it."""
    return Reply({"object": "list", "data": [{"id": name, "root": root, "max_model_len": context}]})


def scores(*numbers: Any) -> Reply:
    """The answer of `/classify` to one input."""
    return batch([list(numbers)])


def batch(probs: Sequence[Sequence[Any]]) -> Reply:
    """The answer of `/classify` to several inputs."""
    return Reply({"data": [{"index": place, "label": None, "probs": one} for place, one in enumerate(probs)]})


def graded(content: Any, finish_reason: str = "stop", logprobs: Any = None) -> Reply:
    """The answer of a judge."""
    choice = {"message": {"content": content}, "finish_reason": finish_reason, "logprobs": logprobs}
    return Reply({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 5}})


def classifier(score: Callable[[list[int]], float] = lambda ids: float(sum(ids) % 7 - 3), **model: Any) -> Script:
    """The script of a healthy `/classify` server; `score` is asked with the ids."""

    def answer(seen: Seen) -> Reply:
        return models(**model) if seen.path == "/v1/models" else batch([[score(ids)] for ids in seen.body["input"]])

    return answer


def completion(
    seen: Seen, ids: Sequence[int], finish_reason: str | None = "stop", stop_reason: Any = None, **more: Any
) -> dict[str, Any]:
    """The answer of `/v1/completions` that ends with `ids`, or an event of it."""
    choice = {"index": 0, "text": "?", "token_ids": list(ids), "prompt_token_ids": seen.body["prompt"], **more}
    return {"choices": [{**choice, "finish_reason": finish_reason, "stop_reason": stop_reason}]}


def policy(sampled: Callable[[dict[str, Any]], Sequence[int]], **model: Any) -> Script:
    """The script of a healthy vLLM server with a policy; `sampled` is asked with the body, and gives ids with EOS."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/v1/models":
            return models(**model)
        if seen.path != "/v1/completions":
            return Reply({}, 404)
        ids = sampled(seen.body)
        if not seen.body.get("stream"):
            return Reply(completion(seen, ids))
        *first, last = ids
        return Reply(events=[*(completion(seen, [one], None) for one in first), completion(seen, [last])])

    return answer


def chat(answers: Callable[[dict[str, Any]], Sequence[str]], finish_reason: str = "stop", name: str = "gpt") -> Script:
    """The script of a healthy chat endpoint that knows `n`; `answers` is asked with the body."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/v1/models":
            return models(name, root=None, context=None)
        texts = answers(seen.body)
        choices = [
            {"index": place, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            for place, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 20, "completion_tokens": 10 * len(texts)}
        return Reply({"choices": choices, "usage": usage})

    return answer


def judge(grade: Callable[[str], Any], name: str = "judge") -> Script:
    """The script of a healthy judge; `grade` is asked with the user's message, and gives the content of the answer."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/v1/models":
            return models(name, root=None, context=None)
        return graded(grade(seen.body["messages"][0]["content"]))

    return answer


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110, it is another thread's, or another process's
            await asyncio.sleep(0.002)


class ModelServer:
    """Answers by `script`, which may be replaced; runs in a thread, on one port over several lives."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.left = 0
        """Connections that the client closed before its answer."""
        self.port = 0
        self.users: list[object] = []
        """Engines on this server: while they are used something must hold them, as a service does."""
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def posts(self) -> list[Seen]:
        """The requests to score something."""
        return [one for one in self.seen if one.method == "POST"]

    def start(self) -> None:
        """Listen, on the port of the life before."""
        self._call(self._listen())

    def kill(self) -> None:
        """Close every connection and the port, as when the process dies."""
        self._call(self._close())

    @classmethod
    @contextlib.contextmanager
    def running(cls, script: Script) -> Iterator[ModelServer]:
        """Serve by `script`."""
        server = cls(script)
        thread = threading.Thread(target=server._loop.run_forever)
        thread.start()
        try:
            server.start()
            yield server
            server.kill()
        finally:
            server._loop.call_soon_threadsafe(server._loop.stop)
            thread.join(10)
            server._loop.close()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        await until(lambda: not self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split()
        seen = Seen(method, path, headers, json.loads(body) if body else None)
        self.seen.append(seen)
        reply = self.script(seen)
        if reply.events:
            writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            writer.write(b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in reply.events))
            await writer.drain()
        if reply.hold and not await self._held(reader, reply.hold):
            self.left += 1
            return False
        if reply.drop:
            return False
        if reply.events:
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
            return False
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        writer.write(f"HTTP/1.1 {reply.status} X\r\ncontent-length: {len(content)}\r\n{extra}\r\n".encode() + content)
        await writer.drain()
        return True

    async def _held(self, reader: asyncio.StreamReader, hold: threading.Event) -> bool:
        """Wait for `hold`; False if the client leaves first."""
        gone = asyncio.ensure_future(reader.read(1))
        await until(lambda: hold.is_set() or gone.done(), 60)
        if gone.done():
            return False
        gone.cancel()
        await asyncio.wait([gone])
        return True

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Whether `condition` holds within ten seconds."""
        return wait_until(condition, 10)


def remote(server: ModelServer, **limits: Any) -> RemoteModel:
    """The model of a `classifier`, as it is found at the start."""
    return RemoteModel(Link(parse_address(server.url), KEY, **limits), "rm", None, 2048)


def options(name: str = "safety", **changes: Any) -> EngineOptions:
    """Start options of an engine."""
    values: dict[str, Any] = {
        "name": name, "checkpoint": "", "dtype": "float32", "context": None, "kv_cache": None, "memory_share": None,
        "max_sequences": 8, "execution": "eager", "load_format": "auto", "on_gpu": False, "fork": False,
    }  # fmt: skip
    return EngineOptions(**{**values, **changes})


def pool(plain: Literal["classify", "completions"], *servers: ModelServer, **more: Any) -> RemoteModel:
    """The model of several servers, as it is found at the start; `more` are limits, and `absent` servers."""
    first, *others = parse_addresses(",".join(server.url for server in servers), plain)
    absent = tuple(parse_address(server.url, plain) for server in more.pop("absent", ()))
    link = Link(first, KEY, others={address: {} for address in others}, **more)
    return RemoteModel(link, "rm", None, 2048, absent)
