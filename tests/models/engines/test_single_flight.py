"""A shared computation runs once, and neither a failure nor a cancelled caller spoils it for the others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from winnow.models.engines.single_flight import SingleFlight


class Slow:
    """Computes once it is let go; counts what was begun, and what was cancelled."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.cancelled: Counter[int] = Counter()
        self.running = asyncio.Event()
        self.gate = asyncio.Event()
        self.fails = False

    async def __call__(self, key: int) -> str:
        self.begun[key] += 1
        self.running.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled[key] += 1
            raise
        if self.fails:
            raise ValueError(str(key))
        return str(key)


async def asked(shared: SingleFlight[int, str], slow: Slow, count: int) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(shared(1)) for _ in range(count)]
    await slow.running.wait()
    return tasks


async def test_many_callers_share_one_computation_and_its_value_is_kept() -> None:
    slow = Slow()
    shared = SingleFlight(slow, 2)
    tasks = await asked(shared, slow, 16)
    assert shared.known(1) is None
    slow.gate.set()
    assert await asyncio.gather(*tasks) == ["1"] * 16
    assert (await shared(1), shared.known(1), slow.begun[1]) == ("1", "1", 1)


async def test_a_cancelled_caller_leaves_the_computation_to_the_others() -> None:
    slow = Slow()
    shared = SingleFlight(slow, 2)
    first, *others = await asked(shared, slow, 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    slow.gate.set()
    assert await asyncio.gather(*others) == ["1", "1"]
    assert (slow.begun[1], slow.cancelled[1]) == (1, 0)


async def test_the_last_caller_cancels_the_computation_and_the_next_starts_anew() -> None:
    slow = Slow()
    shared = SingleFlight(slow, 2)
    tasks = await asked(shared, slow, 3)
    for task in tasks:
        task.cancel()
    # One that asks before the cancelled computation has noticed.
    later = asyncio.create_task(shared(1))
    await asyncio.wait([*tasks])
    slow.gate.set()
    assert await later == "1"
    assert (slow.begun[1], slow.cancelled[1]) == (2, 1)


async def test_a_failure_reaches_all_callers_and_is_not_kept() -> None:
    slow = Slow()
    shared = SingleFlight(slow, 2)
    slow.fails = True
    tasks = await asked(shared, slow, 3)
    slow.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["1"] * 3
    assert all(isinstance(result, ValueError) for result in results)
    slow.fails = False
    assert (await shared(1), slow.begun[1]) == ("1", 2)


async def test_only_the_last_values_are_kept() -> None:
    slow = Slow()
    slow.gate.set()
    shared = SingleFlight(slow, 2)
    for key in (1, 2, 1, 3):
        await shared(key)
    assert [shared.known(key) for key in (1, 2, 3)] == ["1", None, "3"]
    assert slow.begun == {1: 1, 2: 1, 3: 1}
    shared.forget()
    assert shared.known(1) is None
