"""The migrations of a store: numbered files of SQL, each run once, in order, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import NamedTuple

from winnow.models.errors import StoreError
from winnow.server.store.database import Database

_FILE = re.compile(r"(\d{4})_\w+\.sql")


class Migration(NamedTuple):
    """A step of the schema: its number, from 1, and its statements, with `${serial}` for a table's own number."""

    number: int
    statements: tuple[str, ...]


def migrations() -> list[Migration]:
    """Return the migrations of this version, in order."""
    folder = resources.files("winnow.server.store") / "migrations"
    found = [(match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    return sorted(Migration(int(match[1]), _statements(file.read_text(encoding="utf-8"))) for match, file in found)


def _statements(text: str) -> tuple[str, ...]:
    code = re.sub(r"^\s*--.*\n", "", text, flags=re.MULTILINE)
    return tuple(statement.strip() for statement in code.split(";") if statement.strip())


def migrate(database: Database, steps: Sequence[Migration] | None = None) -> None:
    """Bring a new or an older store to this version's schema; two processes may do it at once.

    Raises:
        StoreError: it is a newer version's, or another program's.
    """
    wanted = migrations() if steps is None else steps
    if _applied(database) == wanted[-1].number:
        return
    with database.transaction():
        if database.is_foreign():
            raise StoreError("unusable", "the store has tables of another program; name another file or database")
        database.execute("CREATE TABLE IF NOT EXISTS migration (number BIGINT PRIMARY KEY)")
        applied = _applied(database)
        if applied > wanted[-1].number:
            raise StoreError(
                "unusable",
                f"a newer Winnow has written this store (schema {applied}; this one knows {wanted[-1].number}); "
                "use that version, or another store",
            )
        for step in wanted:
            if step.number > applied:
                for statement in step.statements:
                    database.execute(Template(statement).substitute(serial=database.serial))
                database.execute("INSERT INTO migration VALUES (?)", (step.number,))


def _applied(database: Database) -> int:
    """Return the number of the last migration that was run; 0 in a new store."""
    if not database.has_table("migration"):
        return 0
    return int(database.execute("SELECT coalesce(max(number), 0) FROM migration")[0][0])
