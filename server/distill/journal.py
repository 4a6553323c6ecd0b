"""The journal of a run: append-only, an entry a line, in the order in which prompts were finished.

What was appended survives `kill -9`; what was appended before the last `sync` survives a power cut. A torn end is cut when the
journal is opened again. A damaged line in the middle is passed over: its prompt is simply done anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from winnow.models.errors import RunError
from winnow.server.distill.files import sync_folder
from winnow.server.distill.records import Entry, Problem, dump, load

NAME = "journal.jsonl"
LOCK = "lock"


class Journal:
    """The one writer of a folder's journal. Opening takes the folder's lock, repairs the end and reads what is done.

    `done` holds the numbers of the input lines that need no more work, `problems` those of them that have no answers, and
    `failed` those whose candidates all failed. `damaged` counts lines that were passed over.

    Raises:
        RunError: another process writes here, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.done: set[int] = set()
        self.problems: set[int] = set()
        self.failed: set[int] = set()
        self.damaged = 0
        try:
            self._lock = _lock(folder)
            self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._size = self._repair(folder / NAME)
            sync_folder(folder)
        except OSError as error:
            raise RunError(f"{folder} cannot be written to: {error.strerror}") from None

    def _repair(self, path: Path) -> int:
        """Read all entries and cut off what follows the last whole one; the size that is left."""
        whole = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("torn")
                    self._note(load(line))
                    whole = file.tell()
                except ValueError:
                    self.damaged += 1
        if whole < path.stat().st_size:
            os.ftruncate(self._file, whole)
        return whole

    def _note(self, entry: Entry) -> None:
        is_problem = isinstance(entry, Problem)
        has_failed = isinstance(entry, Problem) and entry.kind == "failed"
        self.done.add(entry.line)
        (self.problems.add if is_problem else self.problems.discard)(entry.line)
        (self.failed.add if has_failed else self.failed.discard)(entry.line)

    def append(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            RunError: it could not be written whole; the journal is left as it was before.
        """
        line = dump(entry) + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(0, "the disk is full")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise _unwritable(error) from None
        self._size += len(line)
        self._note(entry)

    def sync(self) -> None:
        """Make sure that what was appended is on the disk.

        Raises:
            RunError: the disk did not take all of it.
        """
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise _unwritable(error) from None

    def close(self) -> None:
        """Sync, and let others write.

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
    """Lock the folder for this process. The system lets go of it when the process ends, however it does."""
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        # A record lock belongs to the process: an engine that is forked later, and outlives us for a moment, does not hold it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise RunError(f"another process is writing to {folder}; wait for it, or choose another --out") from None
    return file


def read(folder: Path) -> Iterator[Entry]:
    """The entries of a run in the order of its input, each line once, the newest entry of a line counting.

    Only the places of the entries in the file are held in memory, about 150 bytes each. A run that is still being written may be
    read.

    Raises:
        RunError: there is no journal.
    """
    newest = places(folder)
    with (folder / NAME).open("rb") as file:
        for number in sorted(newest):
            file.seek(newest[number])
            yield load(file.readline())


def places(folder: Path) -> dict[int, int]:
    """Where in the journal the newest entry of each input line begins, in bytes.

    Raises:
        RunError: there is no journal.
    """
    try:
        file = (folder / NAME).open("rb")
    except OSError:
        raise RunError(f"{folder} holds no run: there is no {NAME}") from None
    newest: dict[int, int] = {}
    place = 0
    with file:
        for line in file:
            with contextlib.suppress(ValueError):
                newest[load(line).line] = place
            place += len(line)
    return newest
