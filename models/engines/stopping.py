"""Stopping a candidate that another server samples: its request is cancelled, which closes its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from winnow.models.errors import CandidateStopped
from winnow.models.policy import CandidateHandle

T = TypeVar("T")


async def stoppable(work: Coroutine[Any, Any, T], handle: CandidateHandle, tokens: Callable[[], int]) -> T:
    """Return the result of `work`, which `handle` can stop; `tokens` tells how many have been sampled by then.

    Raises:
        CandidateStopped: it was stopped.
    """
    if handle.is_stopped:
        work.close()
        raise CandidateStopped(0)
    task, stopped = asyncio.ensure_future(work), asyncio.Event()

    async def abort() -> None:
        stopped.set()
        task.cancel()

    handle.abort = abort
    try:
        return await task
    except asyncio.CancelledError:
        this = asyncio.current_task()
        if stopped.is_set() and not (this and this.cancelling()):
            raise CandidateStopped(tokens()) from None
        raise
