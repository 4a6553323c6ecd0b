from __future__ import annotations

import asyncio
import os
import signal

import pytest

from winnow.loadtests.signals import interruptible


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_asks_for_the_end_and_a_second_one_changes_nothing(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)

    async def waits() -> None:
        stop = interruption.event()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 10)
        os.kill(os.getpid(), number)

    with interruptible() as interruption:
        asyncio.run(waits())
        os.kill(os.getpid(), number)  # the loop is closed
        assert interruption.is_requested
    assert signal.getsignal(number) == before


def test_a_signal_before_the_loop_is_not_lost() -> None:
    async def is_set() -> bool:
        return interruption.event().is_set()

    with interruptible() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asyncio.run(is_set())


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.is_requested
    finally:
        signal.signal(signal.SIGHUP, before)
