"""Batches of requests: complete, in the order of lengths, within the budget; each request for itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.engines.gathering import BatchThread, Request, batches
from winnow.models.errors import CandidateFailed, EngineDead

SECONDS = 20


class Scripted:
    """A thread whose batches wait until they are `let`; a request's score is its first id."""

    def __init__(self, budget: int = 100, coming: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.begun, self.let = threading.Semaphore(0), threading.Event()
        self.thread = BatchThread("safety", self._compute, budget, lambda queued: queued < coming, lambda: None)

    def _compute(self, batch: Sequence[Request]) -> list[float]:
        self.batches.append([request.ids[0] for request in batch])
        self.begun.release()
        assert self.let.wait(SECONDS)
        if self.error:
            raise self.error
        return [float(request.ids[0]) for request in batch]

    def busy(self) -> Request:
        """Return a request that is being computed."""
        request = Request([0])
        self.thread.submit(request)
        assert self.begun.acquire(timeout=SECONDS)
        return request


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_every_request_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    requests = [Request([0] * length) for length in lengths]
    made = list(batches(requests, budget))
    assert sorted(map(id, (request for batch in made for request in batch))) == sorted(map(id, requests))
    assert [len(request.ids) for batch in made for request in batch] == sorted(lengths)
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(len(request.ids) for request in batch) <= budget


def test_requests_that_wait_are_computed_together_the_shortest_first() -> None:
    scripted = Scripted(budget=8)
    scripted.busy()
    waiting = [Request([number] * length) for number, length in ((1, 4), (2, 2), (3, 4), (4, 2))]
    for request in waiting:
        scripted.thread.submit(request)
    scripted.let.set()
    assert [request.result.result(SECONDS) for request in waiting] == [1, 2, 3, 4]
    assert scripted.batches == [[0], [2, 4], [1, 3]]
    scripted.thread.end()


def test_a_request_waits_for_those_that_are_on_their_way() -> None:
    scripted = Scripted(coming=3)
    scripted.let.set()
    requests = [Request([number], submitted=float("inf")) for number in range(3)]
    for request in requests:
        scripted.thread.submit(request)
    assert [request.result.result(SECONDS) for request in requests] == [0, 1, 2]
    assert scripted.batches == [[0, 1, 2]]
    scripted.thread.end()


def test_a_cancelled_request_is_not_computed() -> None:
    scripted = Scripted()
    scripted.busy()
    cancelled, kept = Request([1]), Request([2])
    scripted.thread.submit(cancelled).cancel()
    scripted.thread.submit(kept)
    scripted.let.set()
    assert kept.result.result(SECONDS) == 2
    assert scripted.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        cancelled.result.result(SECONDS)
    scripted.thread.end()


def test_an_error_fails_its_batch_alone() -> None:
    scripted = Scripted()
    scripted.error = ValueError("secret text")
    first = scripted.busy()
    scripted.let.set()
    with pytest.raises(CandidateFailed, match=r"^the safety engine failed on a request: ValueError$"):
        first.result.result(SECONDS)
    scripted.error = None
    second = Request([2])
    assert scripted.thread.submit(second).result(SECONDS) == 2
    assert scripted.thread.is_alive
    scripted.thread.end()


def test_a_dead_engine_fails_what_waits_and_what_comes() -> None:
    scripted = Scripted()
    scripted.error = EngineDead("the safety engine is gone: a fault")
    first, second, third = scripted.busy(), Request([2]), Request([3])
    scripted.thread.submit(second)
    scripted.let.set()
    for request in (first, second):
        with pytest.raises(EngineDead):
            request.result.result(SECONDS)
    with pytest.raises(EngineDead):
        scripted.thread.submit(third).result(SECONDS)
    assert not scripted.thread.is_alive
    scripted.thread.end()


def test_the_end_fails_what_waits_and_finishes_what_is_computed() -> None:
    scripted = Scripted()
    first, second = scripted.busy(), Request([2])
    scripted.thread.submit(second)
    ending = threading.Thread(target=scripted.thread.end)
    ending.start()
    with pytest.raises(EngineDead):
        second.result.result(SECONDS)
    scripted.let.set()
    ending.join(SECONDS)
    assert first.result.result(SECONDS) == 0
    assert not scripted.thread.is_alive
