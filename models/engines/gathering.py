"""A thread that computes requests in batches: gathered for a few milliseconds, sorted by length, within a budget.

Knows neither models nor texts. Requests are served in the order of arrival, as far as one gathering goes before the
next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from winnow.models.errors import CandidateFailed, EngineDead

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.003
"""Longest time that a request waits for others that are on their way."""
END_SECONDS = 10.0
"""Time that the end waits for the batch that is being computed."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One text to score: its ids, their types if the model has such, and where the score goes."""

    ids: Sequence[int]
    types: Sequence[int] | None = None
    result: Future[float] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)


def batches(requests: Sequence[Request], budget: int) -> Iterator[list[Request]]:
    """Yield the requests in batches of similar lengths, of at most `budget` tokens padded, or of one request."""
    batch: list[Request] = []
    for request in sorted(requests, key=lambda request: len(request.ids)):
        if batch and (len(batch) + 1) * len(request.ids) > budget:
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


class BatchThread:
    """Calls `compute` with batches of at most `budget` padded tokens, on a thread of its own.

    `are_others_coming` says whether requests are pending that have not been submitted yet; only for those is waited.
    `prepare` is called on the thread first. An exception of `compute` fails the requests of its batch; `EngineDead`
    ends the thread.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Sequence[Request]], Sequence[float]],
        budget: int,
        are_others_coming: Callable[[int], bool],
        prepare: Callable[[], object],
    ) -> None:
        self._name = name
        self._compute = compute
        self._budget = budget
        self._are_others_coming = are_others_coming
        self._prepare = prepare
        self._queue: list[Request] = []
        self._changed = threading.Condition()
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, name=f"winnow-{name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether requests are computed."""
        return self._thread.is_alive() and not self._is_ended

    def submit(self, request: Request) -> Future[float]:
        """Queue a request; returns its result, which may be cancelled until it is computed."""
        with self._changed:
            if self._is_ended:
                request.result.set_exception(self._gone())
            else:
                self._queue.append(request)
                self._changed.notify()
        return request.result

    def end(self) -> None:
        """Fail what is queued, and wait for the batch that is being computed, if that does not take too long."""
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        self._prepare()
        while gathered := self._gathered():
            for batch in batches(gathered, self._budget):
                self._answer(batch)

    def _gathered(self) -> list[Request]:
        """Wait for requests and return them; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_ended)
            while self._queue and (seconds := self._queue[0].submitted + GATHER_SECONDS - time.monotonic()) > 0:
                if self._is_full() or not self._are_others_coming(len(self._queue)):
                    break
                self._changed.wait(seconds)
            gathered, self._queue = self._queue, []
            return gathered

    def _is_full(self) -> bool:
        return len(self._queue) * max(len(request.ids) for request in self._queue) >= self._budget

    def _answer(self, batch: Sequence[Request]) -> None:
        if self._is_ended:
            _fail(batch, self._gone())
            return
        wanted = [request for request in batch if request.result.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            scores = self._compute(wanted)
        except EngineDead as error:
            _fail(wanted, error)
            self._stop()
        except Exception as error:  # the thread must go on for the other requests
            logger.debug("a batch of the %s engine failed", self._name, exc_info=error)
            reason = f"the {self._name} engine failed on a request: {type(error).__name__}"
            _fail(wanted, CandidateFailed(reason))
        else:
            for request, score in zip(wanted, scores, strict=True):
                request.result.set_result(score)

    def _stop(self) -> None:
        with self._changed:
            self._is_ended = True
            queued, self._queue = self._queue, []
            self._changed.notify()
        _fail(queued, self._gone())

    def _gone(self) -> EngineDead:
        return EngineDead(f"the {self._name} engine is gone")


def _fail(requests: Sequence[Request], error: Exception) -> None:
    for request in requests:
        if request.result.running() or request.result.set_running_or_notify_cancel():
            request.result.set_exception(error)
