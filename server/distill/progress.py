"""Shows how far a run has come: a live bar in a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Literal

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from winnow.server.distill.meter import Meter, Reading
from winnow.server.pipeline.lifecycle import give_up

Style = Literal["bar", "lines", "json"]
SECONDS: dict[Style, float] = {"bar": 0.25, "lines": 10.0, "json": 1.0}


def style(as_json: bool) -> Style:
    """The style that fits: JSON if asked for, a bar if a person looks at standard error."""
    return "json" if as_json else "bar" if sys.stderr.isatty() else "lines"


@contextlib.asynccontextmanager
async def shown(meter: Meter, how: Style) -> AsyncIterator[None]:
    """Show `meter` for the length of the block, and its last state at the end, however it ends."""
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(_Bar()) if how == "bar" else _Lines() if how == "lines" else _Json()

        def tell() -> None:
            with contextlib.suppress(OSError):  # nobody listens any more: no reason to stop
                show(meter.read())

        async def repeat() -> None:
            while True:
                await asyncio.sleep(SECONDS[how])
                tell()

        task = asyncio.create_task(repeat())
        try:
            yield
        finally:
            give_up(task)
            tell()


class _Bar:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("prompts"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rates]}"),
            console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task("prompts", rates="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, now: Reading) -> None:
        self._progress.update(self._task, total=now.total, completed=now.done + now.errors, rates=_rates(now))


class _Lines:
    def __call__(self, now: Reading) -> None:
        print(f"{now.done + now.errors}/{now.total} prompts · {_rates(now)}", file=sys.stderr, flush=True)


class _Json:
    def __call__(self, now: Reading) -> None:
        body = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(now).items()}
        sys.stdout.buffer.write(orjson.dumps({"event": "progress", **body}) + b"\n")
        sys.stdout.buffer.flush()


def _rates(now: Reading) -> str:
    eta = "…" if now.eta_seconds is None else _duration(now.eta_seconds)
    return (
        f"{now.prompts_per_second:.1f} prompts/s · {now.tokens_per_second:,.0f} tokens/s · "
        f"{now.candidates_in_flight} candidates in flight · {now.errors} errors · {eta} left"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
