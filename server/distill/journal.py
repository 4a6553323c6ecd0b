"""The journal of a run: append-only, an entry a line, in the order in which prompts were finished.

Appended entries survive `kill -9`; entries appended before the last `sync` survive a power cut. Opening
the journal again cuts off a torn last line. A damaged line in the middle is ignored; its prompt is answered again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from winnow.models.disk import sync
from winnow.models.errors import RunError
from winnow.server.distill.records import Entry, Problem, dump, load

NAME = "journal.jsonl"
LOCK = "lock"


class Journal:
    """Writer of a folder's journal; a folder has at most one at a time.

    Opening takes the folder's lock, repairs the end of the journal and reads the finished lines.
    `done` holds the numbers of the input lines that need no more work, `problems` those of them without
    answers, and `failed` those whose candidates all failed. `damaged` counts ignored lines. `lost` is why the disk did
    not take what had been appended.

    Raises:
        RunError: another process writes here, the folder cannot be written to, or the journal has another format.
    """

    def __init__(self, folder: Path) -> None:
        self.done: set[int] = set()
        self.problems: set[int] = set()
        self.failed: set[int] = set()
        self.damaged = 0
        self.lost: RunError | None = None
        self._syncing = threading.Lock()
        self._places: dict[int, int] = {}
        try:
            self._lock = _lock(folder)
            self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._size = self._repair(folder / NAME)
            sync(folder)
        except OSError as error:
            raise RunError(f"{folder} cannot be written to: {error.strerror}") from None

    def _repair(self, path: Path) -> int:
        """Read all entries, cut off what follows the last whole one, and return the remaining size."""
        place = whole = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = load(line)
                    if not line.endswith(b"\n"):
                        raise ValueError("torn")
                    self._note(entry, place)
                    whole = place + len(line)
                except ValueError:
                    self.damaged += 1
                place += len(line)
        if whole < path.stat().st_size:
            os.ftruncate(self._file, whole)
        return whole

    def _note(self, entry: Entry, place: int) -> None:
        self._places[entry.line] = place
        is_problem = isinstance(entry, Problem)
        has_failed = isinstance(entry, Problem) and entry.kind == "failed"
        self.done.add(entry.line)
        (self.problems.add if is_problem else self.problems.discard)(entry.line)
        (self.failed.add if has_failed else self.failed.discard)(entry.line)

    def append(self, entry: Entry) -> None:
        """Append an entry.

        Raises:
            RunError: it could not be written whole; the journal stays as it was.
        """
        line = dump(entry) + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(0, "the disk is full")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise _unwritable(error) from None
        self._note(entry, self._size)
        self._size += len(line)

    def entry(self, line: int) -> Entry:
        """Return the newest entry of an input line that has one.

        Raises:
            RunError: it cannot be read any more.
        """
        try:
            with open(self._file, "rb", closefd=False) as file:
                file.seek(self._places[line])
                return load(file.readline())
        except (OSError, ValueError):
            raise RunError("the journal has changed while it was in use; run it again") from None

    def entries(self) -> Iterator[Entry]:
        """Yield the newest entry of each input line, in the order of the input.

        Raises:
            RunError: as `entry`.
        """
        return map(self.entry, sorted(self._places))

    def sync(self) -> None:
        """Flush appended entries to the disk; any thread may call it.

        Raises:
            RunError: the disk did not take all of it, now or earlier: the system tells of a loss only once.
        """
        with self._syncing:
            try:
                if not self.lost:
                    os.fdatasync(self._file)
            except OSError as error:
                self.lost = _unwritable(error)
            if self.lost:
                raise self.lost from None

    def close(self) -> None:
        """Sync and release the lock.

        Raises:
            RunError: the disk did not take all of it.
        """
        try:
            self.sync()
        finally:
            os.close(self._file)
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RunError:
            if kind is None:
                raise


def _unwritable(error: OSError) -> RunError:
    return RunError(f"the journal cannot be written: {error.strerror}; free some space and run it again")


def _lock(folder: Path) -> int:
    """Lock the folder for this process. The kernel releases the lock when the process ends, however it ends."""
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        # A record lock belongs to the process: a forked engine that outlives this process for a moment does not
        # hold it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise RunError(f"another process is writing to {folder}; wait for it, or choose another --out") from None
    return file


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        RunError: another process holds it, or the folder cannot be written to.
    """
    try:
        lock = _lock(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be written to: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(lock)


def is_being_written(folder: Path) -> bool:
    """Whether another process holds the folder's lock; a folder that may only be read counts as free."""
    try:
        os.close(_lock(folder))
    except RunError:
        return True
    except OSError:
        pass
    return False


def read(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a run in the order of its input, the newest one of each line.

    Only the offsets of the entries are held in memory, about 150 bytes each. The run may still be in progress.

    Raises:
        RunError: there is no journal.
    """
    newest = offsets(folder)
    with (folder / NAME).open("rb") as file:
        for number in sorted(newest):
            file.seek(newest[number])
            yield load(file.readline())


def lines(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Yield what `read` does as it is stored: the number of each input line, and its entry with the line end.

    Raises:
        RunError: there is no journal.
    """
    newest = offsets(folder)
    with (folder / NAME).open("rb") as file:
        for number in sorted(newest):
            file.seek(newest[number])
            yield number, file.readline().removesuffix(b"\n") + b"\n"


def no_run(folder: Path, name: str) -> RunError:
    """Return the error for a folder without `name`, a file that every run has."""
    return RunError(f"{folder} holds no run: there is no {name}")


def offsets(folder: Path) -> dict[int, int]:
    """Return the offset in bytes of each input line's newest entry.

    Raises:
        RunError: there is no journal.
    """
    try:
        file = (folder / NAME).open("rb")
    except OSError:
        raise no_run(folder, NAME) from None
    newest: dict[int, int] = {}
    place = 0
    with file:
        for line in file:
            with contextlib.suppress(ValueError):
                newest[load(line).line] = place
            place += len(line)
    return newest
