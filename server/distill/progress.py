"""Progress of a run: the counters, and their display as a live bar, as plain lines, or as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from winnow.models.types import ScoredCandidate
from winnow.server.aio import cancel
from winnow.server.distill.records import Entry, Problem

WINDOW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a run at one moment.

    `done` counts lines with answers and `errors` lines without, those of earlier processes included;
    `candidates` and `tokens` are those of this process. Rates are averages of the last half minute, and
    `eta_seconds` is None while they are 0. Of a budgeted run, `budget` candidates are to be sampled in all, `sampled`
    have been, by earlier processes too, and `round` is under way, 0 for the first waves. They are None elsewhere.
    """

    total: int
    done: int
    errors: int
    in_flight: int
    candidates_in_flight: int
    candidates: int
    tokens: int
    seconds: float
    prompts_per_second: float
    tokens_per_second: float
    eta_seconds: float | None
    round: int | None = None
    sampled: int | None = None
    budget: int | None = None


class Meter:
    """Counts finished lines, of `total` expected ones; blank lines do not count."""

    def __init__(self, total: int, done: int = 0, errors: int = 0) -> None:
        self.total = total
        self.done = done
        self.errors = errors
        self._in_flight = 0
        self._candidates_in_flight = 0
        self._candidates = 0
        self._tokens = 0
        self._finished = 0
        self._round: int | None = None
        self._budget = 0
        self._sampled = 0
        self._started = time.monotonic()
        self._past: deque[tuple[float, int, int, int]] = deque()
        self._note_now()

    def count(self, entry: Entry) -> None:
        """Count a finished line."""
        self._finished += 1
        if isinstance(entry, Problem):
            self.errors += 1
            return
        self.done += 1
        self._count(entry.selection.scored, entry.selection.candidates)

    def begin_round(self, number: int, sampled: int, budget: int) -> None:
        """Show the round with this `number`, before which `sampled` candidates have been sampled, of a `budget`."""
        self._round, self._sampled, self._budget = number, sampled, budget
        self._past.clear()
        self._note_now()

    def count_wave(self, scored: Sequence[ScoredCandidate], candidates: int) -> None:
        """Count a further wave, of so many `candidates`, of a line that has been counted."""
        self._count(scored, candidates)

    def _count(self, scored: Sequence[ScoredCandidate], candidates: int) -> None:
        self._candidates += len(scored)
        self._tokens += sum(item.candidate.tokens for item in scored)
        self._sampled += candidates

    @contextlib.contextmanager
    def under_way(self, candidates: int) -> Iterator[None]:
        """Count a prompt as in flight for the length of the block."""
        self._in_flight += 1
        self._candidates_in_flight += candidates
        try:
            yield
        finally:
            self._in_flight -= 1
            self._candidates_in_flight -= candidates

    def read(self) -> Reading:
        """Return the state now."""
        now = self._note_now()
        while len(self._past) > 2 and now - self._past[0][0] > WINDOW_SECONDS:
            self._past.popleft()
        then, finished, tokens, sampled = self._past[0]
        span = max(now - then, 1e-9)
        rate = (self._finished - finished) / span
        seconds_left = _seconds(self.total - self.done - self.errors, rate)
        is_budgeted = self._round is not None
        if is_budgeted:
            seconds_left = _seconds(self._budget - self._sampled, (self._sampled - sampled) / span)
        return Reading(
            total=self.total,
            done=self.done,
            errors=self.errors,
            in_flight=self._in_flight,
            candidates_in_flight=self._candidates_in_flight,
            candidates=self._candidates,
            tokens=self._tokens,
            seconds=now - self._started,
            prompts_per_second=rate,
            tokens_per_second=(self._tokens - tokens) / span,
            eta_seconds=seconds_left,
            round=self._round,
            sampled=self._sampled if is_budgeted else None,
            budget=self._budget if is_budgeted else None,
        )

    def _note_now(self) -> float:
        now = time.monotonic()
        self._past.append((now, self._finished, self._tokens, self._sampled))
        return now


def _seconds(left: int, rate: float) -> float | None:
    return max(0, left) / rate if rate > 0 else None


Style = Literal["bar", "lines", "json"]
SECONDS: dict[Style, float] = {"bar": 0.25, "lines": 10.0, "json": 1.0}


def style(as_json: bool) -> Style:
    """Return the display: JSON if asked for, a bar if standard error is a terminal, else lines."""
    return "json" if as_json else "bar" if sys.stderr.isatty() else "lines"


@contextlib.asynccontextmanager
async def shown(meter: Meter, how: Style) -> AsyncIterator[None]:
    """Show `meter` for the length of the block, and its final state at the end, also if the block raises."""
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(_Bar()) if how == "bar" else _Lines() if how == "lines" else _Json()

        def tell() -> None:
            with contextlib.suppress(OSError):  # a closed pipe must not stop the run
                show(meter.read())

        async def repeat() -> None:
            while True:
                await asyncio.sleep(SECONDS[how])
                tell()

        task = asyncio.create_task(repeat())
        try:
            yield
        finally:
            cancel(task)
            tell()


class _Bar:
    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(bar_width=max(4, console.width // 5)), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rates]}", table_column=Column(ratio=1, no_wrap=True)),
            console=console, expand=True,
        )  # fmt: skip
        self._task = self._progress.add_task("prompts", unit="prompts", rates="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, now: Reading) -> None:
        completed, total, unit = _extent(now)
        self._progress.update(self._task, total=total, completed=completed, unit=unit, rates=_rates(now))


class _Lines:
    def __call__(self, now: Reading) -> None:
        completed, total, unit = _extent(now)
        print(f"{completed}/{total} {unit} · {_rates(now)}", file=sys.stderr, flush=True)


class _Json:
    def __call__(self, now: Reading) -> None:
        body = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(now).items()}
        sys.stdout.buffer.write(orjson.dumps({"event": "progress", **body}) + b"\n")
        sys.stdout.buffer.flush()


def _extent(now: Reading) -> tuple[int, int, str]:
    """Return how much is done, of how much, and of what: prompts, or the candidates of a budget with their round."""
    if now.round is None:
        return now.done + now.errors, now.total, "prompts"
    return (
        now.sampled or 0,
        now.budget or 0,
        f"candidates, round {now.round}" if now.round else "candidates, first waves",
    )


def _rates(now: Reading) -> str:
    """Return the rates, the most important first: the end is cut where the terminal is narrow."""
    eta = "…" if now.eta_seconds is None else _duration(now.eta_seconds)
    return (
        f"{eta} left · {now.errors} errors · {now.prompts_per_second:.1f} prompts/s · "
        f"{now.tokens_per_second:,.0f} tokens/s · {now.candidates_in_flight} candidates in flight"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
