"""Child processes of the benchmarks: started in a process group of their own, waited for, ended by their process id.

The kernel ends a child (SIGTERM) when this process is gone, even if that is killed without a chance to clean
up. Start children from the main thread: the kernel watches the thread that started them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

START_SECONDS = 240.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.2
LOG_TAIL_BYTES = 4000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ServerFailed(Exception):
    """A server ended, or did not become healthy in time; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start. `environment` is added to this process's; `health` answers 200 once it serves."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"


@dataclass(frozen=True, slots=True)
class Child:
    """A started process and its log file."""

    command: Command
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def log_tail(self) -> str:
        """The end of the process's log."""
        size = os.fstat(self.log.fileno()).st_size
        start = max(0, size - LOG_TAIL_BYTES)
        return os.pread(self.log.fileno(), LOG_TAIL_BYTES, start).decode(errors="replace").strip()

    def failure(self, event: str) -> ServerFailed:
        """Return an error that says what happened to this child, with the end of its log."""
        return ServerFailed(f"{self.command.name} {event}; it wrote:\n{self.log_tail or '(nothing)'}")

    def wait_until_healthy(self, url: str, seconds: float = START_SECONDS) -> None:
        """Poll until `url` answers 200.

        Raises:
            ServerFailed: the process ended, or `seconds` went by.
        """
        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=5) as http:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if http.get(url).status_code == 200:
                        return
                with contextlib.suppress(subprocess.TimeoutExpired):
                    raise self.failure(f"ended with status {self.process.wait(POLL_SECONDS)} before it was healthy")
        raise self.failure(f"was not healthy within {seconds:g} s")

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM, wait, and kill the rest of the process group."""
        if self.process.poll() is None:
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """Return a port on the loopback that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def started(command: Command, *, with_pipes: bool = False, log_file: Path | None = None) -> Iterator[Child]:
    """Start a process, and end it on leaving.

    `with_pipes` connects its standard input and output. Standard error goes to a log, which is kept in
    `log_file` if given.
    """
    pipe = subprocess.PIPE if with_pipes else None
    with log_file.open("w+b") if log_file else tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603, our own commands
            list(command.arguments),
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or log,
            stderr=log,
            env={**os.environ, **command.environment},
            bufsize=0,
            process_group=0,
            preexec_fn=end_with_parent,
        )
        child = Child(command, process, log)
        try:
            yield child
        finally:
            child.stop()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


@contextlib.contextmanager
def serving(command: Command, port: int, seconds: float = START_SECONDS, log_file: Path | None = None) -> Iterator[str]:
    """Start a server that listens on `port` of the loopback, and yield its address once it is healthy.

    Raises:
        ServerFailed: it ended, or was not healthy within `seconds`.
    """
    url = f"http://127.0.0.1:{port}"
    with started(command, log_file=log_file) as child:
        child.wait_until_healthy(url + command.health, seconds)
        yield url


def end_with_parent() -> None:
    """Let this process, a child that has just been forked, be ended with its parent."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
