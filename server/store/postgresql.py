"""A store in a PostgreSQL database, through psycopg 3 (the extra `postgresql`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from winnow.models.errors import StoreError, StoreFault
from winnow.server.store.database import Row

LOCK = 0x57494E4E4F57
"""The advisory lock that writers of one database take turns by; "WINNOW" in ASCII."""
LIMITS = "SET lock_timeout = '5s'; SET statement_timeout = '60s'"
ISOLATION = "SET default_transaction_isolation = 'read committed'"
"""Above that, whoever has waited for the lock would not see what its last holder wrote."""
TABLES = (
    *("selection", "origin", "export", "export_person", "tombstone", "fact", "migration"),
    *("guidelines", "batch", "pair", "annotator", "lease", "annotation"),
)
WITH_WORDS = ("selection", "annotation", "lease")
"""The tables that hold people's words."""


class PostgresqlDatabase:
    """A connection to the database at `url`; see `Database`. Tables are made in the first schema of its search path.

    Raises:
        StoreError: no database answers there.
    """

    serial = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"

    def __init__(self, url: str) -> None:
        with self._faults():
            self._connection = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=5,
                tcp_user_timeout=10_000,
                application_name="winnow",
            )
            self._connection.execute(f"{LIMITS}; {ISOLATION}")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; see `Database`."""
        with self._faults(), self._connection.cursor() as cursor:
            cursor.execute(_named(statement), values)
            return cursor.fetchall() if cursor.description else []

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`; see `Database`."""
        with self._faults(), self._connection.cursor() as cursor:
            cursor.executemany(_named(statement), rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a block as a whole, while no other writer does; see `Database`."""
        with self._faults(), self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            yield

    def is_alive(self) -> bool:
        """Whether the connection still stands, which one round trip tells; see `Database`."""
        try:
            self.execute("SELECT 1")
        except StoreError:
            return False
        return True

    def has_table(self, name: str) -> bool:
        """Whether there is such a table."""
        # Not to_regclass, which may answer from before another session's commit.
        return bool(
            self.execute(
                "SELECT 1 FROM pg_tables WHERE tablename = ? AND schemaname = ANY (current_schemas(false))", (name,)
            )
        )

    def is_foreign(self) -> bool:
        """Whether tables of ours are there, but made by another program; see `Database`."""
        return not self.has_table("migration") and any(map(self.has_table, TABLES))

    def compact(self) -> None:
        """Write the tables with people's words anew, without what was deleted."""
        self.execute("SET statement_timeout = 0")  # a large table takes its time
        try:
            for table in WITH_WORDS:
                self.execute(f"VACUUM FULL {table}")
        finally:
            with contextlib.suppress(StoreError):
                self.execute(LIMITS)

    def size(self) -> int:
        """Return the bytes of the tables and their indexes."""
        return int(sum(self.execute("SELECT pg_total_relation_size(?::regclass)", (table,))[0][0] for table in TABLES))

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise StoreError(*_fault(error)) from None


def _named(statement: str) -> str:
    return statement.replace("?", "%s")


def _fault(error: psycopg.Error) -> tuple[StoreFault, str]:
    """Return the kind of a failure; the server's own words may quote a row, so only their kind is told."""
    state = error.sqlstate or ""
    if state == "53100":
        return "full", "the disk of the PostgreSQL server is full; free some space there"
    if state in ("55P03", "57014", "40P01"):
        return "locked", "another session of the PostgreSQL server holds the store"
    if state.startswith("28"):
        return "unusable", "the PostgreSQL server does not accept the user or the password of the store's URL"
    if state == "3D000":
        return "unusable", "the PostgreSQL server does not have the database of the store's URL; create it"
    if state.startswith("XX"):
        return "corrupt", "the PostgreSQL server reports that the store's tables are damaged"
    if not state or state.startswith(("08", "57")):
        return "unreachable", "no PostgreSQL server answers at the store's URL"
    return "unusable", f"the PostgreSQL server refuses the store's statement ({state}, {type(error).__name__})"
