"""The narrow seam between the store and a database: statements with `?`, transactions, and faults by kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]


class Database(Protocol):
    """A connection that one thread uses. Every method raises `StoreError` if the database cannot do it.

    `serial` is the type of a table's own number, which counts up and is never used again.
    """

    serial: str

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement, whose values stand as `?`, and return its rows; outside of a transaction it is one."""

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run a block that is done whole or not at all. Nobody else writes meanwhile to what it has read."""

    def is_alive(self) -> bool:
        """Whether the connection still stands: a server, or what is on the way to it, ends idle ones."""

    def has_table(self, name: str) -> bool:
        """Whether there is such a table."""

    def is_foreign(self) -> bool:
        """Whether there are tables, but none of a store: the file or the schema is of another program."""

    def compact(self) -> None:
        """Give the room of what was deleted back, and leave nothing of it behind; if that fails, try again."""

    def size(self) -> int:
        """Return the bytes that the store takes."""

    def close(self) -> None:
        """End the connection; never raises."""
