"""Runs one trial as a process of its own, with a time limit; one that crashes or hangs is an outcome like any other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from winnow.server.doctor.memory_watch import MemoryWatch, Taken, below
from winnow.server.doctor.privacy import clean_text

LOG_LINES = 40
LINE_CHARACTERS = 300
END_SECONDS = 15.0
"""Longest wait for the processes of an ended trial; a card's memory is free once they are gone."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a trial: what it found, and the reason in one line if it failed.

    `found` also has what a trial had found before it failed. `log` has the last lines that its processes printed, of
    a failed trial only. `is_late` says that it was ended at its time limit.
    """

    name: str
    seconds: float
    found: dict[str, Any] = field(default_factory=dict)
    taken: Taken | None = None
    error: str | None = None
    is_late: bool = False
    log: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether the trial ended as it should."""
        return self.error is None

    @property
    def as_json(self) -> dict[str, Any]:
        """The outcome as values of JSON."""
        return {"ok": self.is_ok, **asdict(self)}


def attempt(
    name: str,
    command: Sequence[str],
    folder: Path,
    limit: float,
    card: Callable[[], int | None] | None = None,
) -> Outcome:
    """Run a trial for at most `limit` seconds; call it from the main thread.

    The command is given two more arguments: the path to which it writes what it found, as JSON, and this process's
    id, so that it can end with it. `card` reads the card's free memory; None watches the machine's.
    """
    result, log = folder / f"{name}.json", folder / f"{name}.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603, our own command
            [*command, str(result), str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0,
            env={"PYTHONFAULTHANDLER": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        watch = MemoryWatch(process.pid, card)
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            watch.end()
            _end(process)
    told = _read(result)
    error = _error(told, status, limit)
    return Outcome(
        name=name,
        seconds=round(time.monotonic() - started, 1),
        found=told.get("found", {}),
        taken=watch.taken(told.get("ready_at")),
        error=error and clean_text(error),
        is_late=status is None,
        log=_tail(log) if error else (),
    )


def _error(told: dict[str, Any], status: int | None, limit: float) -> str | None:
    if status is None:
        last = told.get("step")
        return f"not done after {limit:g} s" + (f", while {last}" if last else "")
    if status == 0:
        return None if "found" in told else "it ended without a result"
    if told.get("error"):
        return str(told["error"])
    return f"its process ended with signal {-status}" if status < 0 else f"its process ended with status {status}"


def _read(result: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(result.read_text(encoding="utf-8"))
        if isinstance(told, dict):
            return told
    return {}


def _tail(log: Path) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return tuple(clean_text(line)[:LINE_CHARACTERS] for line in lines if line.strip())[-LOG_LINES:]
    return ()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a trial's process and wait until those that it started are gone; the kernel ends engines with it."""
    left = below(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver that hangs may hold it
        process.wait(END_SECONDS)
    deadline = time.monotonic() + END_SECONDS
    while (left := [pid for pid in left if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False
