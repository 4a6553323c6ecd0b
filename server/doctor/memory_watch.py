"""Watches the memory that a trial takes, from another process: the card's free memory, or the memory of processes.

On a card the driver tells only how much is free in all, least of all in a container, so each engine's part is what
free memory fell by from its own start to the start of the next one. On CPU the kernel tells each process's part, with
pages that several processes share divided among them (PSS). Engines start one after another, in a known order.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from winnow.models.engines.hardware import ram

PERIOD_SECONDS = 0.25
LEAST_REST = 4
"""The watch rests at least LEAST_REST times as long as a look takes, so that it takes little of the machine."""
ENGINE_TITLE = "EngineCore"
"""Part of the title that vLLM gives an engine's process."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look, at a time of the monotonic clock.

    `free` is bytes of the card or the machine (None: not read), `processes` has bytes and title of each process.
    """

    free: int | None
    processes: Mapping[int, tuple[int, str]]
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """The most memory that a trial took, in bytes: each engine in the order of their starts, and all together.

    On a card an engine's part is that of its start, and only the total knows what was taken under load. `least_free` is
    what stayed free of a card or of the machine; None where nothing was seen.
    """

    engines: tuple[int, ...]
    total: int
    least_free: int | None


def taken_on_card(looks: Sequence[Look], engines: Sequence[int], ready_at: float | None = None) -> Taken | None:
    """Return what the processes `engines`, in the order of their starts, took of a card; None if nothing was seen.

    `ready_at` is when the last of them had started; None takes all that follows for its start.
    """
    free = [look.free for look in looks if look.free is not None]
    if not free:
        return None
    begins = [next(number for number, look in enumerate(looks) if engine in look.processes) for engine in engines]
    ready = sum(ready_at is None or look.at < ready_at for look in looks)
    parts = []
    for begin, end in itertools.pairwise([*begins, max([ready, *begins])]):
        before = looks[max(0, begin - 1)].free
        within = [look.free for look in looks[begin:end] if look.free is not None]
        parts.append(max(0, before - min(within)) if before is not None and within else 0)
    return Taken(tuple(parts), max(0, free[0] - min(free)), min(free))


def taken_in_ram(looks: Sequence[Look], engines: Sequence[int]) -> Taken | None:
    """Return what the processes `engines`, and all of the trial, took of the machine; None if nothing was seen."""
    if not any(look.processes for look in looks):
        return None
    peaks = tuple(max(look.processes[engine][0] for look in looks if engine in look.processes) for engine in engines)
    free = [look.free for look in looks if look.free is not None]
    total = max(sum(size for size, _ in look.processes.values()) for look in looks)
    return Taken(peaks, total, min(free, default=None))


def engines_of(looks: Sequence[Look]) -> list[int]:
    """Return the process ids of the engines, in the order in which they were first seen."""
    titled = {pid for look in looks for pid, (_, title) in look.processes.items() if ENGINE_TITLE in title}
    seen = dict.fromkeys(pid for look in looks for pid in look.processes)
    return [pid for pid in seen if pid in titled]


@dataclass
class MemoryWatch:
    """Looks at a process and those below it until it is ended; `card` reads a card's free memory, None is for CPU."""

    process: int
    card: Callable[[], int | None] | None = None
    looks: list[Look] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def taken(self, ready_at: float | None) -> Taken | None:
        """Return what was taken; `ready_at` is when the last engine had started, None if it has not, or none did."""
        engines = engines_of(self.looks)
        return taken_on_card(self.looks, engines, ready_at) if self.card else taken_in_ram(self.looks, engines)

    def _run(self) -> None:
        took = 0.0
        while not self._over.wait(max(PERIOD_SECONDS, LEAST_REST * took)):
            started = time.monotonic()
            sizes = {pid: (memory_of(pid), title_of(pid)) for pid in (self.process, *below(self.process))}
            self.looks.append(Look(self.card() if self.card else ram().free, sizes, time.monotonic()))
            took = time.monotonic() - started


def below(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes that `pid` started, and those that they did, parents first."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for task in sorted((proc / str(pid) / "task").iterdir()):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *below(child, proc)]
    return found


def memory_of(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the memory of a process in bytes, shared pages divided among those that share them; 0 if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def title_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Return the command line of a process, or the title that it has given itself; empty if it is gone."""
    with contextlib.suppress(OSError):
        return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
