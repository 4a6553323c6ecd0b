"""Servers for tests: `winnow serve` as a process of its own, and the HTTP server over a service of this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from winnow.models.engines.environment import START_METHOD
from winnow.models.engines.hardware import ram
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.api.run import configure
from winnow.server.classifiers import chosen_classifier
from winnow.server.pipeline.admission import Admission
from winnow.server.service import Service
from winnow.server.settings import Settings

WINNOW = str(Path(sys.executable).with_name("winnow"))
START_SECONDS = 180.0
TICK_SECONDS = 0.01
ENGINES_GIB = 3
"""Memory that three demo engines need, about, with the process that starts them."""


def question(content: str = "What is the capital of France?", **fields: Any) -> dict[str, Any]:
    """Return the body of a chat request with one question; `fields` override or extend it."""
    return {"model": "winnow-demo", "messages": [{"role": "user", "content": content}], **fields}


@dataclass
class Reachable:
    """Something that serves HTTP."""

    url: str

    @property
    def http(self) -> httpx.Client:
        """A client whose paths are relative to the server's root."""
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def chat(self, content: str = "What is the capital of France?", **fields: Any) -> httpx.Response:
        """Post one question to the chat endpoint; `fields` override or extend the body."""
        with self.http as http:
            return http.post("/v1/chat/completions", json=question(content, **fields))


@dataclass
class LiveServer(Reachable):
    """The process and where it listens."""

    process: subprocess.Popen[str]

    @property
    def engine_pids(self) -> list[int]:
        """Process ids of the engines behind the server."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(60)

    @classmethod
    @contextlib.contextmanager
    def start(cls, *arguments: str, program: Sequence[str] = (WINNOW,)) -> Iterator[LiveServer]:
        """Start `winnow serve`, or another `program`, with the given flags and yield it once it is ready."""
        process = subprocess.Popen(
            [*program, "serve", "--port", "0", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            # Engines that this process has started have left their start method in its environment.
            env={**{k: v for k, v in os.environ.items() if k != START_METHOD}, "PYTHONWARNINGS": "default"},
            start_new_session=True,
        )
        try:
            with blaming_memory():
                url = _wait_until_ready(process)
            yield cls(url, process)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            assert process.stderr
            process.stderr.close()


def _wait_until_ready(process: subprocess.Popen[str]) -> str:
    """Read the log until the server says where it is ready, and let a thread drain the rest of it."""
    deadline = time.monotonic() + START_SECONDS
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"ready: (http://\S+)/v1", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            assert "Traceback" not in "".join(lines)
            return found.group(1)
        if time.monotonic() > deadline:
            break
    raise AssertionError(f"the server did not get ready; it said:\n{''.join(lines)}")


@contextlib.contextmanager
def blaming_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Iterator[None]:
    """Start engines in the block; if that fails for want of memory, the first line of the error says so."""
    available, kills = ram(proc, groups).free / 2**30, _oom_kills(proc)
    try:
        yield
    except Exception as error:
        if kills < _oom_kills(proc):
            cause = "the kernel's OOM killer ended a process meanwhile"
        elif available < ENGINES_GIB:
            cause = f"{available:.1f} GiB were available, and three engines need about {ENGINES_GIB}"
        else:
            raise
        raise AssertionError(f"memory, not the code: {cause}\n{error}") from error


def _oom_kills(proc: Path) -> int:
    """Return the number of processes that the kernel has killed for want of memory since it started."""
    counters = dict(line.split() for line in (proc / "vmstat").read_text().splitlines())
    return int(counters.get("oom_kill", 0))


def own_engines() -> list[int]:
    """Return the process ids of the engines that this process has started, in that order: the policy's last."""
    return sorted(child.pid for child in multiprocessing.active_children() if child.pid)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Any, seconds: float) -> bool:
    """Poll `condition` until it holds; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def scripted(
    tokenizer: Tokenizer,
    policy: ScriptedPolicy | None = None,
    safety: ScriptedRewardModel | None = None,
    helpfulness: ScriptedRewardModel | None = None,
    **settings: Any,
) -> Service:
    """A service on scripted engines, for faults that real ones cannot be made to show, or only slowly."""
    chosen, judge = Settings(**settings), safety or ScriptedRewardModel()
    return Service(
        chosen,
        chosen.chat_template,
        tokenizer,
        chosen_classifier(chosen, judge, chosen.safety.calibration(None)),
        policy or ScriptedPolicy(),
        judge,
        helpfulness or ScriptedRewardModel(),
        Admission(chosen.max_candidates_in_flight, chosen.max_queued_candidates, chosen.max_queued_tokens),
    )


class _PromptServer(uvicorn.Server):
    """A server that ends as soon as its connections have; uvicorn's own pauses for tenths of a second, per test."""

    async def main_loop(self) -> None:
        ticks = itertools.count()
        while not await self.on_tick(next(ticks)):  # noqa: ASYNC110, uvicorn has no event for it
            await asyncio.sleep(TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110, uvicorn has no event for it
            await asyncio.sleep(TICK_SECONDS)
        await self.lifespan.shutdown()


@dataclass
class ScriptedServer(Reachable):
    """The HTTP server over a scripted service, in a thread of this process."""

    service: Service
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], object]) -> None:
        """Call `function` in the server's loop."""
        self.loop.call_soon_threadsafe(function)

    @classmethod
    @contextlib.contextmanager
    def start(cls, service: Service, keys: ApiKeys | None = None) -> Iterator[ScriptedServer]:
        """Serve `service` and yield once it listens."""
        server = _PromptServer(configure(service, keys or ApiKeys()))
        with _listener() as listener:
            loop = asyncio.new_event_loop()

            async def served() -> None:
                await server.serve([listener])
                await service.leave_loop()

            def run() -> None:
                with asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.run(served())

            thread = threading.Thread(target=run)
            thread.start()
            try:
                assert wait_until(lambda: server.started, 10)
                yield cls(_url(listener), service, loop)
            finally:
                server.should_exit = True
                thread.join(20)


@contextlib.asynccontextmanager
async def serving(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """Serve `service` in the running loop, which real engines are bound to, and yield a client of the server."""
    server = _PromptServer(configure(service, ApiKeys()))
    with _listener() as listener:
        task = asyncio.create_task(server.serve([listener]))
        try:
            async with httpx.AsyncClient(base_url=_url(listener), timeout=120, trust_env=False) as http:
                while not server.started:  # noqa: ASYNC110, uvicorn has no event for it
                    await asyncio.sleep(0.01)
                yield http
        finally:
            server.should_exit = True
            await task


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"
