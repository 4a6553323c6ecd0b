from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loadtests.systems import Scripted, answered, ask
from tests.loadtests.virtual import now, pass_blocking, run
from winnow.loadtests.load_generator import NOT_IN_TIME, Sample, closed_loop, open_loop
from winnow.loadtests.types import Ask, Reply

OFFSETS = st.lists(st.floats(0, 100), min_size=1, max_size=30).map(sorted)


def offered(system: Any, offsets: list[float], **options: Any) -> list[Sample]:
    asks = [ask(number) for number in range(len(offsets))]
    return run(open_loop(system, asks, offsets, **{"drain": 1000.0, "now": now, **options}))


@settings(max_examples=40)
@given(OFFSETS, st.floats(0.1, 30))
def test_open_requests_start_when_they_are_due_whatever_is_outstanding(offsets: list[float], seconds: float) -> None:
    samples = offered(Scripted(seconds=lambda _: seconds), offsets)
    assert sorted(sample.number for sample in samples) == list(range(len(offsets)))
    assert sorted(sample.intended for sample in samples) == pytest.approx(offsets)
    for sample in samples:
        assert sample.sent == pytest.approx(sample.intended, abs=1e-6)
        assert sample.latency == pytest.approx(seconds, abs=1e-6)


def test_a_queue_is_charged_to_the_system() -> None:
    samples = offered(Scripted(slots=1, seconds=lambda _: 2.0), [0.0, 1.0, 2.0])
    assert [sample.latency for sample in samples] == pytest.approx([2.0, 3.0, 4.0])


def test_latency_counts_from_the_intended_arrival_when_the_loop_is_blocked() -> None:
    """Coordinated omission: a stall of 10 s is charged to all who came meanwhile, not to the one who was sent into it."""

    class Blocking:
        name = "blocking"

        async def ask(self, asked: Ask) -> Reply:
            if asked.number == 0:
                pass_blocking(10.0)
            return answered(asked)

    samples = offered(Blocking(), [0.0, 1.0, 2.0, 3.0])
    assert [sample.latency for sample in samples] == pytest.approx([10.0, 9.0, 8.0, 7.0], abs=1e-3)
    assert [sample.lag for sample in samples] == pytest.approx([0.0, 9.0, 8.0, 7.0], abs=1e-3)


def test_what_has_no_reply_at_the_end_of_the_drain_has_failed() -> None:
    samples = offered(Scripted(seconds=lambda asked: 1.0 if asked.number else 1e6), [0.0, 5.0], drain=7.0)
    assert [(sample.number, sample.reply.kind, sample.reply.error) for sample in samples] == [
        (1, "answered", None),
        (0, "failed", NOT_IN_TIME),
    ]
    assert samples[1].latency == pytest.approx(12.0)


@pytest.mark.parametrize("is_open", [True, False])
def test_stopping_sends_no_more_and_counts_what_has_ended(is_open: bool) -> None:
    async def stopped() -> list[Sample]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(2.5, stop.set)
        system = Scripted(seconds=lambda _: 1.0)
        asks = map(ask, range(1000))
        if is_open:
            return await open_loop(system, asks, [0.5 * n for n in range(1000)], drain=100, stop=stop, now=now)
        return await closed_loop(system, asks, 2, drain=100, stop=stop, now=now)

    samples = run(stopped())
    assert [sample.reply.kind for sample in samples] == ["answered"] * 4


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 2**20))
def test_a_closed_loop_keeps_its_clients_busy(concurrency: int, requests: int, salt: int) -> None:
    system = Scripted(seconds=lambda asked: 0.5 + (asked.number * 37 + salt) % 5)
    samples = run(closed_loop(system, map(ask, range(requests)), concurrency, drain=1000, now=now))
    assert sorted(sample.number for sample in samples) == list(range(requests))
    assert system.most_at_once == min(concurrency, requests)
    assert all(sample.lag == pytest.approx(0, abs=1e-6) for sample in samples)


def test_a_closed_loop_ends_with_its_time_and_lets_the_last_ones_finish() -> None:
    samples = run(closed_loop(Scripted(), map(ask, range(1000)), 2, seconds=3.5, drain=100, now=now))
    assert [sample.intended for sample in samples] == pytest.approx([0, 0, 1, 1, 2, 2, 3, 3])
    assert all(sample.reply.kind == "answered" for sample in samples)


def test_a_closed_loop_whose_system_hangs_ends_too() -> None:
    system = Scripted(seconds=lambda _: 1e6)
    samples = run(closed_loop(system, map(ask, range(1000)), 3, seconds=5.0, drain=10.0, now=now))
    assert [sample.reply.error for sample in samples] == [NOT_IN_TIME] * 3
    assert len(system.asked) == 3


def test_a_client_that_is_refused_asks_again() -> None:
    system = Scripted(reply=lambda asked: Reply("refused", now()) if asked.number % 2 else None)
    samples = run(closed_loop(system, map(ask, range(6)), 1, drain=10, now=now))
    assert [sample.reply.kind for sample in samples] == ["answered", "refused"] * 3


@pytest.mark.parametrize("is_open", [True, False])
def test_a_system_that_breaks_its_promise_ends_the_run(is_open: bool) -> None:
    class Broken:
        name = "broken"

        async def ask(self, asked: Ask) -> Reply:
            raise ZeroDivisionError

    asks = map(ask, range(9))
    work = (
        open_loop(Broken(), asks, [0.0, 1.0], drain=9, now=now) if is_open else closed_loop(Broken(), asks, 2, drain=9)
    )
    with pytest.raises(ExceptionGroup) as caught:
        run(work)
    assert caught.group_contains(ZeroDivisionError)


def test_every_sample_is_shown() -> None:
    seen: list[Sample] = []
    assert offered(Scripted(), [0.0, 1.0, 2.0], seen=seen.append) == seen
