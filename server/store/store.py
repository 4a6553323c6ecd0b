"""Everything that is asked of a store, in SQL that SQLite and PostgreSQL share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import orjson

from winnow.models.errors import StoreError
from winnow.server.distill.records import Arm, Record, load
from winnow.server.store.annotations import Annotations
from winnow.server.store.batches import Batches
from winnow.server.store.database import Database, Row
from winnow.server.store.rows import ExportedFile, Forgotten, NewRow, Origin, StoreCounts, Stored
from winnow.server.store.schema import migrate

PAGE = 256
"""Rows of one read: a reader of a file holds its lock only so long, and a writer waits for it."""
DELETE_AT_ONCE = 1000
LAST_NUMBER = 2**63 - 1
_COLUMNS = "number, id, created, expires, owner, model, refusal, origin, user_digest, identifier_digest, record"
_LASTS = "(expires IS NULL OR expires > ?)"


class Store:
    """A store in `database`, with the schema of this version. One thread at a time uses it.

    Every method raises `StoreError` if the database fails it.

    Raises:
        StoreError: the schema is a newer version's or another program's, or the digests were made with another key
            than the one that `key_check` tells apart.
    """

    def __init__(self, database: Database, key_check: str | None = None) -> None:
        self._database = database
        self.batches = Batches(database)
        self.annotations = Annotations(database)
        try:
            migrate(database)
            if key_check is not None:
                self._require_key(key_check)
        except BaseException:
            database.close()
            raise

    def _require_key(self, check: str) -> None:
        """Note which key the digests are made with, or check that it is the same one as ever."""
        self._database.execute("INSERT INTO fact VALUES ('key', ?) ON CONFLICT (name) DO NOTHING", (check,))
        if self._database.execute("SELECT value FROM fact WHERE name = 'key'") != [(check,)]:
            raise StoreError(
                "unusable",
                "this store's digests of users were made with another key: with this one nobody could be forgotten. "
                "Name the key file that it began with (store_key_file)",
            )

    def origin(self, manifest: Mapping[str, Any]) -> int:
        """Return the number of the origin with this manifest, which is added if it is new."""
        content = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(content).hexdigest()
        self._database.execute(
            "INSERT INTO origin (digest, manifest) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
            (digest, content.decode()),
        )
        return int(self._database.execute("SELECT number FROM origin WHERE digest = ?", (digest,))[0][0])

    def origins(self) -> list[Origin]:
        """Return the origins that answers are from, the oldest first."""
        rows = self._database.execute(
            "SELECT origin.number, origin.manifest, count(*) FROM origin JOIN selection ON selection.origin = "
            "origin.number GROUP BY origin.number, origin.manifest ORDER BY origin.number"
        )
        return [Origin(number, orjson.loads(manifest), count) for number, manifest, count in rows]

    def manifests(self) -> dict[int, dict[str, Any]]:
        """Return the manifests of all origins by their numbers."""
        rows = self._database.execute("SELECT number, manifest FROM origin ORDER BY number")
        return {number: orjson.loads(manifest) for number, manifest in rows}

    def add(self, rows: Sequence[NewRow], origin: int) -> int:
        """Add answers, all or none, and return their number; those of forgotten people from before are left out."""
        with self._database.transaction():
            kept = self._not_forgotten(rows)
            self._database.execute_many(
                "INSERT INTO selection (id, created, expires, owner, user_digest, identifier_digest, model, refusal, "
                "record, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                [(*astuple(row), origin) for row in kept],
            )
        return len(kept)

    def _not_forgotten(self, rows: Sequence[NewRow]) -> list[NewRow]:
        digests = sorted(set().union(*(row.people for row in rows)))
        forgotten: dict[str, int] = {}
        for digest in digests:
            found = self._database.execute("SELECT forgotten FROM tombstone WHERE digest = ?", (digest,))
            forgotten[digest] = found[0][0] if found else -1
        return [row for row in rows if all(row.created > forgotten[digest] for digest in row.people)]

    def get(self, id: str, now: int) -> Stored | None:
        """Return an answer by the id of its completion; None if it is not here, or has expired."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM selection WHERE id = ? AND {_LASTS}",  # noqa: S608
            (id, now),
        )
        return _stored(rows[0]) if rows else None

    def numbered(self, number: int, now: int) -> Stored | None:
        """Return an answer by its number; None if it is not here, or has expired."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM selection WHERE number = ? AND {_LASTS}",  # noqa: S608
            (number, now),
        )
        return _stored(rows[0]) if rows else None

    def existing(self, numbers: Iterable[int]) -> set[int]:
        """Return those of `numbers` that are numbers of answers."""
        wanted = sorted(set(numbers))
        found: set[int] = set()
        for start in range(0, len(wanted), PAGE):
            part = wanted[start : start + PAGE]
            places = ", ".join("?" for _ in part)
            rows = self._database.execute(f"SELECT number FROM selection WHERE number IN ({places})", part)  # noqa: S608
            found.update(row[0] for row in rows)
        return found

    def page(self, after: int, until: int, now: int, given: tuple[int, int], limit: int) -> list[Stored]:
        """Return the next answers with numbers above `after` and up to `until`, at most `limit`.

        They were `given` from one time on and before another one, and have not expired.
        """
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM selection WHERE number > ? AND number <= ? AND created >= ? AND created < ? "  # noqa: S608
            f"AND {_LASTS} ORDER BY number LIMIT ?",
            (after, until, *given, now, limit),
        )
        return [_stored(row) for row in rows]

    def delete(self, id: str) -> bool:
        """Delete an answer, and the pairs and annotations that it is in; False if it is not here."""
        with self._database.transaction():
            found = self._database.execute("SELECT 1 FROM selection WHERE id = ?", (id,))
            self._database.execute("DELETE FROM selection WHERE id = ?", (id,))
        return bool(found)

    def forget(self, digest: str, now: int) -> Forgotten:
        """Delete every answer to the person with this digest, and leave nothing of them in the file.

        The pairs that such an answer is in go with it, and their annotations.
        """
        person = (digest, digest)
        theirs = "SELECT number FROM selection WHERE user_digest = ? OR identifier_digest = ?"
        with self._database.transaction():
            [(annotations,)] = self._database.execute(
                "SELECT count(*) FROM annotation JOIN pair ON pair.number = annotation.pair WHERE is_latest = 1 AND "  # noqa: S608
                f"(a_selection IN ({theirs}) OR b_selection IN ({theirs}))",
                (*person, *person),
            )
            [(count,)] = self._database.execute(
                "SELECT count(*) FROM selection WHERE user_digest = ? OR identifier_digest = ?", person
            )
            self._database.execute("DELETE FROM selection WHERE user_digest = ? OR identifier_digest = ?", person)
            self._database.execute(
                "INSERT INTO tombstone VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET forgotten = excluded.forgotten",
                (digest, now),
            )
            exports = self._database.execute(
                "SELECT created, path, formats FROM export JOIN export_person ON export = number WHERE digest = ? "
                "ORDER BY number",
                (digest,),
            )
        self._database.compact()
        return Forgotten(count, tuple(ExportedFile(*row) for row in exports), int(annotations))

    def prune(self, now: int, created_before: int | None = None) -> int:
        """Delete the answers that have expired, and those `created_before` a time; return their number.

        Pairs and annotations go with their answers.
        """
        deleted = 0
        while some := self.prune_some(now, created_before):
            deleted += some
        return deleted

    def prune_some(self, now: int, created_before: int | None = None) -> int:
        """Delete some of what `prune` deletes, in a moment; return their number, 0 if nothing is left."""
        values = (now, 0 if created_before is None else created_before)
        with self._database.transaction():
            numbers = self._database.execute(
                f"SELECT number FROM selection WHERE (expires <= ? OR created < ?) LIMIT {DELETE_AT_ONCE}",  # noqa: S608
                values,
            )
            self._database.execute_many("DELETE FROM selection WHERE number = ?", numbers)
        return len(numbers)

    def compact(self) -> None:
        """Give the room of what was deleted back."""
        self._database.compact()

    def last_number(self) -> int:
        """Return the number of the newest answer; 0 if there is none."""
        return int(self._database.execute("SELECT coalesce(max(number), 0) FROM selection")[0][0])

    def records(self, origins: Iterable[int], now: int, until: int | None = None) -> Iterator[Stored]:
        """Yield the answers from `origins` that have not expired, in the order of their numbers, a page at a time.

        The store may be written to meanwhile; what is newer than the number `until` is left out.
        """
        wanted = sorted(origins)
        places = ", ".join("?" for _ in wanted)
        last, end = 0, self.last_number() if until is None else until
        while wanted:
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM selection WHERE number > ? AND number <= ? AND {_LASTS} "  # noqa: S608
                f"AND origin IN ({places}) ORDER BY number LIMIT {PAGE}",
                (last, end, now, *wanted),
            )
            yield from map(_stored, rows)
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def newest(self, limit: int, now: int, before: int | None = None, digest: str | None = None) -> list[Stored]:
        """Return at most `limit` answers that have not expired, the newest first, of those with a number `before` that.

        With `digest`, only the answers to that person. Each page is found by its number, so the last one takes no
        longer than the first.
        """
        values: list[Any]
        below = (LAST_NUMBER if before is None else before, now)
        order = f"number < ? AND {_LASTS} ORDER BY number DESC LIMIT ?"
        if digest is None:
            which, values = order, [*below, limit]
        else:
            which = f"number IN ({_own('user', order)} UNION {_own('identifier', order)}) ORDER BY number DESC LIMIT ?"
            values = [*(digest, *below, limit) * 2, limit]
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM selection WHERE {which}", values)  # noqa: S608
        return [_stored(row) for row in rows]

    def people(self, origins: Iterable[int], now: int, until: int) -> set[str]:
        """Return the digests of everyone whose answers `records` yields."""
        wanted = sorted(origins)
        which = f"number <= ? AND {_LASTS} AND origin IN ({', '.join('?' for _ in wanted)})"
        parts = [
            f"SELECT {name} FROM selection WHERE {name} IS NOT NULL AND {which}"  # noqa: S608
            for name in ("user_digest", "identifier_digest")
        ]
        return {digest for (digest,) in self._database.execute(" UNION ".join(parts), (until, now, *wanted) * 2)}

    def exports(self, limit: int) -> list[ExportedFile]:
        """Return the newest exports, at most `limit`, the newest first."""
        rows = self._database.execute(
            "SELECT created, path, formats FROM export ORDER BY number DESC LIMIT ?", (limit,)
        )
        return [ExportedFile(*row) for row in rows]

    def note_export(self, path: str, formats: Sequence[str], people: Iterable[str], now: int) -> None:
        """Note a folder that was written from here, and the digests of the people whose words are in it."""
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO export (created, path, formats) VALUES (?, ?, ?)", (now, path, ",".join(formats))
            )
            [(number,)] = self._database.execute("SELECT max(number) FROM export")
            rows = [(number, digest) for digest in sorted(set(people))]
            self._database.execute_many("INSERT INTO export_person VALUES (?, ?)", rows)

    def counts(self, now: int) -> StoreCounts:
        """Return what is in the store."""
        [(selections, oldest, newest)] = self._database.execute(
            "SELECT count(*), min(created), max(created) FROM selection"
        )
        [(expired,)] = self._database.execute("SELECT count(*) FROM selection WHERE expires <= ?", (now,))
        [(exports,)] = self._database.execute("SELECT count(*) FROM export")
        [(forgotten,)] = self._database.execute("SELECT count(*) FROM tombstone")
        [(batches,)] = self._database.execute("SELECT count(*) FROM batch")
        [(annotations,)] = self._database.execute("SELECT count(*) FROM annotation WHERE is_latest = 1")
        size = self._database.size()
        return StoreCounts(selections, expired, oldest, newest, exports, forgotten, size, batches, annotations)

    def is_alive(self) -> bool:
        """Whether the connection still stands."""
        return self._database.is_alive()

    def close(self) -> None:
        """End the connection."""
        self._database.close()


def _own(whose: str, order: str) -> str:
    """Return the query for the numbers of one person's answers; in parentheses, for each has an order of its own."""
    own = f"SELECT number FROM selection WHERE {whose}_digest = ? AND {order}"  # noqa: S608
    return f"SELECT number FROM ({own}) AS of_{whose}"  # noqa: S608


def _stored(row: Row) -> Stored:
    number, id, created, expires, owner, model, refusal, origin, user, identifier, record = row
    entry = load(record.encode())
    assert isinstance(entry, Record)
    people = frozenset(digest for digest in (user, identifier) if digest)
    own = replace(entry, line=number, arms=_arms(entry))
    return Stored(number, id, created, expires, owner, model, refusal, origin, people, own)


def _arms(record: Record) -> tuple[Arm, ...]:
    """Return the arms of an answer, with room for each of its candidates.

    Versions that lost a finished candidate without a word counted it out of K: a later one's index was then beyond K.
    """
    *first, last = record.arms
    end = 1 + max(item.candidate.index for item in record.selection.scored)
    missing = end - sum(arm.candidates for arm in record.arms)
    return (*first, replace(last, candidates=last.candidates + max(missing, 0)))
