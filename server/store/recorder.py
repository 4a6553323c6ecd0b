"""The recorder: one thread that owns the store, behind a bounded queue. No answer waits for it, or fails with it.

What cannot be kept is dropped and counted, by the reason. Reading and deleting single answers go through the same
queue, so that a caller finds what it has just been answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from winnow.models.errors import StoreError, StoreFault, WinnowError
from winnow.server.settings.values import RecordRule
from winnow.server.store.preparing import Preparer
from winnow.server.store.rows import NewRow, Served
from winnow.server.store.store import Store

logger = logging.getLogger(__name__)
T = TypeVar("T")

DropReason = Literal["queue_full", "unwritable"] | StoreFault
MAX_WAITING = 1024
"""Answers that wait for the writer; more are dropped."""
MAX_CHARACTERS = 64_000_000
"""Length of all their texts together."""
MAX_CALLS = 64
CALL_SECONDS = 15.0
BATCH = 256
GATHER_SECONDS = 1.0
"""The time that a first answer waits for others, to be written in one transaction with them: one costs 0.9 ms of CPU
time, many times what a row in it does."""
READERS = 2
"""Threads for what takes long: reports, batches, the beginnings of downloads. What is asked later waits for one."""
PRUNE_SECONDS = 3600.0
CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """A question to the store, and where its answer goes."""

    function: Callable[[Store], T]
    future: Future[T]

    def answer(self, opened: Callable[[], Store]) -> Exception | None:
        """Ask it, unless the caller has gone, and return what went wrong, which the caller gets too."""
        if not self.future.set_running_or_notify_cancel():
            return None
        try:
            self.future.set_result(self.function(opened()))
        except Exception as error:
            # The boundary of a call: its caller gets the failure, and the thread goes on.
            self.future.set_exception(error)
            return error
        return None


_END = object()


class Recorder:
    """Writes served answers into the store that `open_store` opens, with `manifest` as their origin.

    `written` and `dropped` count answers; `fault` is the reason why the store takes nothing now, None while it does.
    """

    def __init__(
        self,
        kind: Literal["sqlite", "postgresql"],
        rule: RecordRule,
        open_store: Callable[[], Store],
        manifest: Mapping[str, Any],
        preparer: Preparer,
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.kind = kind
        self.rule = rule
        self.preparer = preparer
        self.written = 0
        self.dropped: Counter[DropReason] = Counter()
        self.fault: StoreFault | None = None
        self._open_store = open_store
        self._manifest = manifest
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[Served | _Call[Any] | object] = queue.SimpleQueue()
        # Each count has one thread that changes it, so that none needs a lock.
        self._put, self._taken = 0, 0
        self._put_characters, self._taken_characters = 0, 0
        self._overflow = 0
        self._calls = 0
        self._store: Store | None = None
        self._origin = 0
        self._next_prune = 0.0
        self._asides: queue.SimpleQueue[_Call[Any] | object] = queue.SimpleQueue()
        # No pool: Python waits for a pool's threads before it ends, and a report may take long.
        self._readers = [
            threading.Thread(target=self._read, name=f"winnow-store-reader-{number}", daemon=True)
            for number in range(READERS)
        ]
        self._thread = threading.Thread(target=self._run, name="winnow-store", daemon=True)

    @property
    def waiting(self) -> int:
        """Answers that are not written yet."""
        return self._put - self._taken

    @property
    def drops(self) -> dict[str, int]:
        """The number of dropped answers, by the reason."""
        overflow = {"queue_full": self._overflow} if self._overflow else {}
        return {**{str(reason): number for reason, number in self.dropped.copy().items()}, **overflow}

    def wants(self, asked: bool | None) -> bool:
        """Whether an answer is recorded, given the request's `store`: a refusal holds whatever the rule."""
        return asked is not False and (self.rule == "all" or (self.rule == "opt_in" and asked is True))

    def put(self, served: Served) -> None:
        """Hand an answer to the writer; never waits and never raises. Called from one thread only."""
        characters = served.characters
        held = self._put_characters - self._taken_characters
        if self.waiting >= self._max_waiting or held + characters > MAX_CHARACTERS:
            self._overflow += 1
            return
        self._put += 1
        self._put_characters += characters
        self._queue.put(served)

    async def aside(self, function: Callable[[Store], T]) -> T:
        """Ask the store over a connection that `function` closes, for what takes longer than the writer may wait.

        The process does not wait for it when it ends: what is half written by then has to be found and deleted later.

        Raises:
            StoreError: it cannot be used.
        """
        future: Future[T] = Future()
        self._asides.put(_Call(function, future))
        return await asyncio.wrap_future(future)

    async def call(self, function: Callable[[Store], T], seconds: float | None = None) -> T:
        """Ask the store something, after all that was put before has been written; it may take `seconds`.

        Raises:
            StoreError: the store cannot answer, or not in time.
        """
        if self._calls >= MAX_CALLS:
            raise StoreError("locked", "too many requests wait for the store")
        self._calls += 1
        future: Future[T] = Future()
        self._queue.put(_Call(function, future))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds or CALL_SECONDS)
        except TimeoutError:
            raise StoreError("locked", "the store did not answer in time") from None
        finally:
            self._calls -= 1

    @contextlib.contextmanager
    def running(self) -> Iterator[Recorder]:
        """Run the threads during the block; what is put before its end is written, if the store lets it."""
        for thread in (self._thread, *self._readers):
            thread.start()
        try:
            yield self
        finally:
            for _ in self._readers:
                self._asides.put(_END)
            self._queue.put(_END)
            self._thread.join(CLOSE_SECONDS)
            if self.waiting:
                logger.warning("the store did not take %d answers before the end; they are lost", self.waiting)

    def _read(self) -> None:
        while isinstance(call := self._asides.get(), _Call):
            call.answer(self._open_store)

    def _run(self) -> None:
        self._try(self._opened, 0)
        goes_on = True
        while goes_on:
            batch, last = self._gather()
            if batch:
                self._write(batch)
                self._taken += len(batch)
                self._taken_characters += sum(served.characters for served in batch)
            if isinstance(last, _Call):
                error = last.answer(self._opened)
                if isinstance(error, StoreError):
                    self._close_broken(error.reason)
            goes_on = last is not _END
            if goes_on and time.monotonic() >= self._next_prune:
                self._next_prune = time.monotonic() + PRUNE_SECONDS
                self._try(self._prune, 0)
        if self._store:
            self._store.close()

    def _prune(self) -> None:
        """Delete some of what has expired; the rest after the answers and calls that wait meanwhile."""
        if self._opened().prune_some(int(time.time())):
            self._next_prune = 0.0

    def _gather(self) -> tuple[list[Served], object]:
        """Return the next answers, and the call or the end that came after them, if one did."""
        batch: list[Served] = []
        until = max(self._next_prune, time.monotonic())
        while len(batch) < BATCH:
            try:
                item = self._queue.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if not isinstance(item, Served):
                return batch, item
            if not batch:
                until = time.monotonic() + GATHER_SECONDS
            batch.append(item)
        return batch, None

    def _write(self, batch: Sequence[Served]) -> None:
        rows = [row for served in batch if (row := self._row(served))]

        def add() -> None:
            store = self._opened()
            self.written += store.add(rows, self._origin)

        if rows:
            self._try(add, len(rows))

    def _row(self, served: Served) -> NewRow | None:
        try:
            return self.preparer.row(served)
        except Exception as error:
            # The boundary of a row, whose texts a client wrote: the others are written.
            logger.warning("an answer cannot be written down: %s", type(error).__name__)
            self.dropped["unwritable"] += 1
            return None

    def _try(self, action: Callable[[], object], answers: int) -> None:
        """Do it; if it fails, count its `answers` as dropped, and let the next attempt begin anew."""
        try:
            action()
        except StoreError as error:
            self._failed(error.reason, str(error), answers)
        except WinnowError as error:
            self._failed("unusable", str(error), answers)
        except Exception as error:
            # The boundary of the thread, which must outlive whatever happens in it.
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._failed("unusable", f"{type(error).__name__} in {place.name}, line {place.lineno}", answers)
        else:
            if self.fault:
                logger.info("the store can be used again")
            self.fault = None

    def _failed(self, reason: StoreFault, message: str, answers: int) -> None:
        if self.fault != reason:
            logger.warning("answers are not recorded: %s", message)
        self.fault = reason
        if answers:
            self.dropped[reason] += answers
        self._close_broken(reason)

    def _close_broken(self, reason: StoreFault) -> None:
        """Close a store that has failed: the next attempt opens it anew, as a file or a server may have been mended."""
        if self._store and reason != "locked":
            self._store.close()
            self._store = None

    def _opened(self) -> Store:
        """Return the store, opened anew if its connection was ended while it was idle.

        That is found out before a use, not by its failure: nothing is ever done twice, whatever a call does.
        """
        if self._store and not self._store.is_alive():
            self._close_broken("unreachable")
        if self._store is None:
            store = self._open_store()
            try:
                self._origin = store.origin(self._manifest) if self.rule != "off" else 0
            except BaseException:
                store.close()
                raise
            self._store = store
        return self._store
