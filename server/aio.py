"""Helpers for asyncio, independent of Winnow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any


def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel `task` and retrieve its exception, so that asyncio does not log it."""
    task.cancel()
    retrieve_exception(task)


def retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of `task` once it is done, so that asyncio does not log it if nothing awaits the task."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


@contextlib.asynccontextmanager
async def interrupted_by(event: Coroutine[None, None, object], error: Callable[[], Exception]) -> AsyncIterator[None]:
    """Run the block; if `event` returns first, cancel the block and raise `error()`.

    Works like `asyncio.timeout`: the error is raised once the block has unwound, so what it awaits must react to
    cancellation promptly. A cancellation from outside stays a cancellation.
    """
    block = asyncio.current_task()
    assert block
    cancellations = block.cancelling()
    is_running, is_interrupted = True, False

    def interrupt(done: asyncio.Task[object]) -> None:
        nonlocal is_interrupted
        if is_running and not done.cancelled():  # the block may have ended in the same turn of the loop
            is_interrupted = True
            block.cancel()

    watcher = asyncio.create_task(event)
    watcher.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if is_interrupted and block.cancelling() <= cancellations + 1:
            raise error() from None
        raise
    finally:
        is_running = False
        if is_interrupted:
            block.uncancel()
        cancel(watcher)
