"""Helpers for asyncio: `interrupted_by` against events, outside cancellations and both at once; `cancel`."""

from __future__ import annotations

import asyncio
import gc

import pytest

from winnow.server.aio import cancel, interrupted_by


class Interrupted(Exception):
    """Raised if the event comes first."""


async def forever() -> None:
    await asyncio.Event().wait()


def others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_a_block_that_ends_first_stands_and_its_event_is_cancelled() -> None:
    before, event = others(), asyncio.Event()
    async with interrupted_by(event.wait(), Interrupted):
        await asyncio.sleep(0)
        result = "fine"
    assert result == "fine"
    await asyncio.sleep(0)
    assert others() == before
    event.set()
    await asyncio.sleep(0)  # no cancellation comes afterwards
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_an_event_that_returns_first_cancels_the_block_and_raises_its_error() -> None:
    was_cancelled = False

    async def work() -> None:
        nonlocal was_cancelled
        try:
            await forever()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    with pytest.raises(Interrupted):
        async with interrupted_by(asyncio.sleep(0.01), Interrupted):
            await work()
    assert was_cancelled
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_the_error_is_made_when_the_event_has_returned() -> None:
    reasons: list[str] = []

    async def event() -> None:
        reasons.append("an engine has died")

    with pytest.raises(Interrupted, match="an engine has died"):
        async with interrupted_by(event(), lambda: Interrupted(*reasons)):
            await forever()


async def test_a_cancellation_from_outside_stays_a_cancellation() -> None:
    async def work() -> None:
        async with interrupted_by(forever(), Interrupted):
            await forever()

    before = others()
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert others() == before


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancellation_wins_over_an_event_in_the_same_turn(cancel_first: bool) -> None:
    event = asyncio.Event()

    async def work() -> None:
        async with interrupted_by(event.wait(), Interrupted):
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for act in (task.cancel, event.set) if cancel_first else (event.set, task.cancel):
        act()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", range(6))
async def test_an_event_in_the_turn_in_which_the_block_ends_cancels_nothing_afterwards(turns: int) -> None:
    """Regression: an event in the very turn in which the block ended cancelled the task after the block."""
    event, release = asyncio.Event(), asyncio.Event()
    outcome = ""

    async def work() -> None:
        nonlocal outcome
        try:
            async with interrupted_by(event.wait(), Interrupted):
                await release.wait()
            outcome = "ended"
        except Interrupted:
            outcome = "interrupted"
        await asyncio.sleep(0.01)
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    release.set()
    await task
    assert outcome == {0: "ended", 5: "interrupted"}.get(turns, outcome)


async def test_another_error_of_the_block_stays_and_leaves_no_cancellation_behind() -> None:
    async def fails_on_its_way_out() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError):
        async with interrupted_by(asyncio.sleep(0.01), Interrupted):
            await fails_on_its_way_out()
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_blocks_nest() -> None:
    class Outer(Exception):
        pass

    for outer, inner, error in ((0.01, 60, Outer), (60, 0.01, Interrupted)):
        with pytest.raises(error):
            async with interrupted_by(asyncio.sleep(outer), Outer), interrupted_by(asyncio.sleep(inner), Interrupted):
                await forever()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), interrupted_by(forever(), Interrupted):
            await forever()


async def test_a_cancelled_task_that_fails_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        try:
            await forever()
        finally:
            raise ZeroDivisionError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    cancel(task)
    await asyncio.wait([task])
    del task
    gc.collect()
    assert not caplog.text
