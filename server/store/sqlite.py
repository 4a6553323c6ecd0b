"""A store in one SQLite file, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from winnow.models.errors import StoreError, StoreFault
from winnow.server.store.database import Row

BUSY_SECONDS = 5.0
FIRST_SOUND_WAL = (3, 51, 3)
"""From 3.7.0 on, older versions can corrupt a write-ahead log that is reset while two processes use it."""
_FAULTS: dict[str, tuple[StoreFault, str]] = {
    "SQLITE_FULL": ("full", "the disk is full; free some space"),
    "SQLITE_BUSY": ("locked", "another process holds the file"),
    "SQLITE_LOCKED": ("locked", "another process holds the file"),
    "SQLITE_CORRUPT": ("corrupt", "the file is damaged; move it away, and restore a copy or start with a new one"),
    "SQLITE_NOTADB": ("corrupt", "the file is no SQLite database; move it away, or name another file"),
    "SQLITE_READONLY": ("unusable", "the file cannot be written to, or was moved"),
    "SQLITE_CANTOPEN": ("unusable", "the file cannot be opened"),
    "SQLITE_IOERR": ("unusable", "the disk reports an error"),
}


class SqliteDatabase:
    """A connection to the file `path`, which is made if it is not there; see `Database`.

    A lock of another process is waited for, for `busy_seconds` (default: `BUSY_SECONDS`). What is deleted is
    overwritten with zeros.

    Raises:
        StoreError: the file cannot be used.
    """

    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"

    def __init__(self, path: Path, busy_seconds: float | None = None) -> None:
        self._path = path
        with self._faults():
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as error:
                fault: StoreFault = "full" if error.errno == 28 else "unusable"
                raise StoreError(fault, f"{path} cannot be opened: {error.strerror}") from None
            # One thread at a time uses it, but another one may close it.
            self._connection = sqlite3.connect(
                path,
                timeout=BUSY_SECONDS if busy_seconds is None else busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._set_up()
            except BaseException:
                self.close()
                raise

    def _set_up(self) -> None:
        for pragma in ("foreign_keys = ON", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        mode = "WAL" if sqlite3.sqlite_version_info >= FIRST_SOUND_WAL else "DELETE"
        self._connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; see `Database`."""
        with self._faults():
            return self._connection.execute(statement, values).fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`; see `Database`."""
        with self._faults():
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a block as a whole; see `Database`."""
        with self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def is_alive(self) -> bool:
        """Whether the connection still stands; see `Database`: nobody else ends one to a file."""
        return True

    def has_table(self, name: str) -> bool:
        """Whether there is such a table."""
        return bool(self.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def is_foreign(self) -> bool:
        """Whether the file is another program's; see `Database`."""
        return not self.has_table("migration") and bool(self.execute("SELECT 1 FROM sqlite_master LIMIT 1"))

    def compact(self) -> None:
        """Write the file anew without what was deleted; a write-ahead log is emptied too."""
        with self._faults():
            self._connection.execute("VACUUM")
            [(is_busy, *_)] = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if is_busy:  # no error of SQLite's, but the file and its log still hold what was deleted
            raise StoreError(
                "locked", f"{self._path} still holds what was deleted: another process reads it; try again"
            )

    def size(self) -> int:
        """Return the bytes of the file."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def _fault(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "")
        for start, (fault, about) in _FAULTS.items():
            if name.startswith(start):
                return StoreError(fault, f"the store {self._path} cannot be used: {about}")
        return StoreError("unusable", f"the store {self._path} cannot be used: {name or type(error).__name__}")
