from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loadtests.targets import Scripted, answered, request
from tests.loadtests.virtual import now, pass_blocking, run
from winnow.loadtests.load_generator import NOT_IN_TIME, Sample, closed_loop, open_loop
from winnow.loadtests.types import Reply, Request

OFFSETS = st.lists(st.floats(0, 100), min_size=1, max_size=30).map(sorted)


def offered(target: Any, offsets: list[float], **options: Any) -> list[Sample]:
    requests = [request(number) for number in range(len(offsets))]
    return run(open_loop(target, requests, offsets, **{"drain": 1000.0, "now": now, **options}))


@settings(max_examples=40)
@given(OFFSETS, st.floats(0.1, 30))
def test_an_open_loop_sends_on_time_however_many_are_outstanding(offsets: list[float], seconds: float) -> None:
    samples = offered(Scripted(seconds=lambda _: seconds), offsets)
    assert sorted(sample.number for sample in samples) == list(range(len(offsets)))
    assert sorted(sample.intended for sample in samples) == pytest.approx(offsets)
    for sample in samples:
        assert sample.sent == pytest.approx(sample.intended, abs=1e-6)
        assert sample.latency == pytest.approx(seconds, abs=1e-6)


def test_queueing_counts_as_latency_of_the_target() -> None:
    samples = offered(Scripted(slots=1, seconds=lambda _: 2.0), [0.0, 1.0, 2.0])
    assert [sample.latency for sample in samples] == pytest.approx([2.0, 3.0, 4.0])


def test_latency_counts_from_the_intended_arrival_if_the_loop_is_blocked() -> None:
    """No coordinated omission: a stall of 10 s counts for every request that falls due meanwhile, not just for one."""

    class Blocking:
        name = "blocking"

        async def send(self, sent: Request) -> Reply:
            if sent.number == 0:
                pass_blocking(10.0)
            return answered(sent)

    samples = offered(Blocking(), [0.0, 1.0, 2.0, 3.0])
    assert [sample.latency for sample in samples] == pytest.approx([10.0, 9.0, 8.0, 7.0], abs=1e-3)
    assert [sample.lag for sample in samples] == pytest.approx([0.0, 9.0, 8.0, 7.0], abs=1e-3)


def test_a_request_without_a_reply_after_the_drain_has_failed() -> None:
    samples = offered(Scripted(seconds=lambda sent: 1.0 if sent.number else 1e6), [0.0, 5.0], drain=7.0)
    assert [(sample.number, sample.reply.kind, sample.reply.error) for sample in samples] == [
        (1, "answered", None),
        (0, "failed", NOT_IN_TIME),
    ]
    assert samples[1].latency == pytest.approx(12.0)


@pytest.mark.parametrize("is_open", [True, False])
def test_after_a_stop_only_ended_requests_count(is_open: bool) -> None:
    async def stopped() -> list[Sample]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(2.5, stop.set)
        target = Scripted(seconds=lambda _: 1.0)
        requests = map(request, range(1000))
        if is_open:
            return await open_loop(target, requests, [0.5 * n for n in range(1000)], drain=100, stop=stop, now=now)
        return await closed_loop(target, requests, 2, drain=100, stop=stop, now=now)

    samples = run(stopped())
    assert [sample.reply.kind for sample in samples] == ["answered"] * 4


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 2**20))
def test_a_closed_loop_keeps_its_clients_busy(concurrency: int, requests: int, salt: int) -> None:
    target = Scripted(seconds=lambda sent: 0.5 + (sent.number * 37 + salt) % 5)
    samples = run(closed_loop(target, map(request, range(requests)), concurrency, drain=1000, now=now))
    assert sorted(sample.number for sample in samples) == list(range(requests))
    assert target.most_at_once == min(concurrency, requests)
    assert all(sample.lag == pytest.approx(0, abs=1e-6) for sample in samples)


def test_a_closed_loop_ends_after_its_seconds_and_lets_outstanding_requests_finish() -> None:
    samples = run(closed_loop(Scripted(), map(request, range(1000)), 2, seconds=3.5, drain=100, now=now))
    assert [sample.intended for sample in samples] == pytest.approx([0, 0, 1, 1, 2, 2, 3, 3])
    assert all(sample.reply.kind == "answered" for sample in samples)


def test_a_closed_loop_ends_if_the_target_hangs() -> None:
    target = Scripted(seconds=lambda _: 1e6)
    samples = run(closed_loop(target, map(request, range(1000)), 3, seconds=5.0, drain=10.0, now=now))
    assert [sample.reply.error for sample in samples] == [NOT_IN_TIME] * 3
    assert len(target.requests) == 3


def test_a_refused_client_sends_its_next_request() -> None:
    target = Scripted(reply=lambda sent: Reply("refused", now()) if sent.number % 2 else None)
    samples = run(closed_loop(target, map(request, range(6)), 1, drain=10, now=now))
    assert [sample.reply.kind for sample in samples] == ["answered", "refused"] * 3


@pytest.mark.parametrize("is_open", [True, False])
def test_a_target_that_raises_ends_the_run(is_open: bool) -> None:
    class Broken:
        name = "broken"

        async def send(self, sent: Request) -> Reply:
            raise ZeroDivisionError

    requests = map(request, range(9))
    work = (
        open_loop(Broken(), requests, [0.0, 1.0], drain=9, now=now)
        if is_open
        else closed_loop(Broken(), requests, 2, drain=9)
    )
    with pytest.raises(ExceptionGroup) as caught:
        run(work)
    assert caught.group_contains(ZeroDivisionError)


def test_on_sample_is_called_with_every_sample() -> None:
    seen: list[Sample] = []
    assert offered(Scripted(), [0.0, 1.0, 2.0], on_sample=seen.append) == seen
