"""A Winnow server as a process of its own: `running`; on random weights in a known shape: `served`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from winnow.loadtests.shapes import Shape, write_all

START_SECONDS, STOP_SECONDS, POLL_SECONDS = 900.0, 60.0, 0.3
DEMO_TOKENIZER = Path(__file__).parents[2] / "models" / "demo" / "weights" / "policy"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ServerFailed(Exception):
    """The server ended, or was not ready in time; the message ends with what it logged last."""


@contextlib.contextmanager
def served(shape: Shape, folder: Path, log: Path, tokenizer: Path, flags: Sequence[str] = ()) -> Iterator[str]:
    """Start `winnow serve` on three models of `shape`, written into `folder`, and yield its address once it is ready.

    Its log goes to the file `log`. It runs in a process group of its own, which the kernel ends with this process: call it from
    the main thread.

    Raises:
        ServerFailed: it ended, or was not ready in 15 minutes.
    """
    models = write_all(folder, shape, tokenizer)
    paths = [part for role, path in models.items() for part in (f"--{role}", str(path))]
    with running(["--load-format", "dummy", "--no-canary", *paths, *flags], log) as url:
        yield url


@contextlib.contextmanager
def running(flags: Sequence[str], log: Path) -> Iterator[str]:
    """Start `winnow serve` with `flags` on a free port, and yield its address once it is ready; for the rest see `served`."""
    arguments = [str(Path(sys.executable).with_name("winnow")), "serve", "--port", "0", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603, this environment's own winnow
            arguments,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_end_with_parent,
        )
    try:
        yield _wait(process, log)
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], log: Path) -> str:
    """The server's address, when it answers that it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"winnow serve ended with status {process.returncode}:\n{_tail(log)}")
        if found := re.search(r"ready: (http://[^/\s]+)", log.read_text(errors="replace")):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{found[1]}/ready", trust_env=False).status_code == httpx.codes.OK:
                    return found[1]
        time.sleep(POLL_SECONDS)
    raise ServerFailed(f"winnow serve was not ready within {START_SECONDS:g} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:].strip() or "(nothing)"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
