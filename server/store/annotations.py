"""The work of annotators in a store: leases and annotations; in SQL that both databases share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from winnow.server.store.annotation_rows import AnnotationRow, Judged, LeaseRow, PairRow, Side
from winnow.server.store.batches import SIDES
from winnow.server.store.database import Database, Row

PAGE = 1000
_JUDGED = (
    "pair.batch, pair.number, annotator, choice, shown, left_is_a, a_safe, b_safe, active_ms, revision, "
    f"annotation.created, flags, comment, guidelines, propensity, {SIDES}"
)
_NEWEST_UNTIL = (
    "annotation.number <= ? AND NOT EXISTS (SELECT 1 FROM annotation AS later WHERE later.pair = annotation.pair AND "
    "later.annotator = annotation.annotator AND later.revision > annotation.revision AND later.number <= ?)"
)
_LASTS = "(pair.expires IS NULL OR pair.expires > ?)"
"""Holds for a pair whose answers have not expired; they may be here still, until they are pruned."""
_LEASE = "pair, annotator, lease.batch, left_is_a, token, expires, skipped, revisions"
_ANNOTATION = (
    "pair, annotator, submission, revision, created, choice, shown, left_is_a, a_safe, b_safe, flags, comment, "
    "active_ms, guidelines"
)


class Annotations:
    """Leases and annotations in `database`, whose schema is there.

    What must hold together is done in a `transaction`: only then does nobody else write meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.transaction = database.transaction

    def annotator(self, name: str) -> int:
        """Return the number of the annotator with this name, who is added if they are new."""
        found = self._database.execute("SELECT number FROM annotator WHERE name = ?", (name,))
        if not found:
            self._database.execute("INSERT INTO annotator (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,))
            found = self._database.execute("SELECT number FROM annotator WHERE name = ?", (name,))
        return int(found[0][0])

    def names(self) -> dict[int, str]:
        """Return the names of all annotators by their numbers."""
        return dict(self._database.execute("SELECT number, name FROM annotator ORDER BY number"))

    def open_lease(self, annotator: int, now: int, batch: int | None) -> LeaseRow | None:
        """Return the lease that an annotator holds, in this batch or in any; one to revise comes first.

        Those of pairs whose answers have expired are left out.
        """
        rows = self._database.execute(
            f"SELECT {_LEASE} FROM lease JOIN batch ON batch.number = lease.batch "  # noqa: S608
            "WHERE annotator = ? AND token IS NOT NULL AND lease.expires > ? "
            f"AND EXISTS (SELECT 1 FROM pair WHERE pair.number = lease.pair AND {_LASTS}) "
            f"AND (batch.closed IS NULL OR revisions > 0) {'' if batch is None else 'AND lease.batch = ?'} "
            "ORDER BY revisions DESC, lease.pair LIMIT 1",
            (annotator, now, now, *(() if batch is None else (batch,))),
        )
        return _lease(rows[0]) if rows else None

    def next_pair(self, annotator: int, now: int, batch: int) -> PairRow | None:
        """Return the first pair of a batch that still has a place for this annotator."""
        rows = self._database.execute(
            "SELECT number, batch, a_selection, a_index, b_selection, b_index, places FROM pair "  # noqa: S608
            f"WHERE batch = ? AND places > 0 AND {_LASTS} AND NOT EXISTS "
            "(SELECT 1 FROM lease WHERE lease.pair = pair.number AND annotator = ? AND (revisions > 0 OR skipped IS "
            "NOT NULL)) AND places > (SELECT count(*) FROM lease WHERE lease.pair = pair.number AND annotator <> ? AND "
            "revisions = 0 AND token IS NOT NULL AND lease.expires > ?) ORDER BY number LIMIT 1",
            (batch, now, annotator, annotator, now),
        )
        return PairRow(*rows[0]) if rows else None

    def leases(self, pair: int) -> list[LeaseRow]:
        """Return everyone's leases of a pair."""
        rows = self._database.execute(f"SELECT {_LEASE} FROM lease WHERE pair = ?", (pair,))  # noqa: S608
        return [_lease(row) for row in rows]

    def by_token(self, token: str, annotator: int) -> LeaseRow | None:
        """Return an annotator's lease by its token, which may have expired."""
        rows = self._database.execute(
            f"SELECT {_LEASE} FROM lease WHERE token = ? AND annotator = ?",  # noqa: S608
            (token, annotator),
        )
        return _lease(rows[0]) if rows else None

    def grant(self, lease: LeaseRow) -> None:
        """Add a lease, or put it in the place of the annotator's earlier one of the same pair."""
        self._database.execute(
            "INSERT INTO lease (pair, annotator, batch, left_is_a, token, expires, skipped, revisions) "
            "VALUES (?, ?, ?, ?, ?, ?, NULL, ?) ON CONFLICT (pair, annotator) DO UPDATE SET "
            "left_is_a = excluded.left_is_a, token = excluded.token, expires = excluded.expires",
            (
                lease.pair,
                lease.annotator,
                lease.batch,
                int(lease.left_is_a),
                lease.token,
                lease.expires,
                lease.revisions,
            ),
        )

    def skip(self, lease: LeaseRow, reason: str, now: int) -> None:
        """End a lease without an annotation; the pair does not come back to this annotator."""
        self._database.execute(
            "UPDATE lease SET token = NULL, skipped = ?, reason = ? WHERE pair = ? AND annotator = ?",
            (now if lease.revisions == 0 else None, reason or None, lease.pair, lease.annotator),
        )

    def add(self, row: AnnotationRow) -> None:
        """Add an annotation, which ends its lease; an annotator's first for a pair takes one of its places."""
        key = (row.pair, row.annotator)
        self._database.execute("UPDATE annotation SET is_latest = 0 WHERE pair = ? AND annotator = ?", key)
        values = (
            *(*key, row.submission, row.revision, row.created, row.choice, row.shown),
            *(int(row.left_is_a), int(row.a_safe), int(row.b_safe)),
            *(orjson.dumps(row.flags).decode(), row.comment, row.active_ms, row.guidelines),
        )
        self._database.execute(
            f"INSERT INTO annotation ({_ANNOTATION}, is_latest) VALUES ({', '.join('?' * len(values))}, 1)",  # noqa: S608
            values,
        )
        self._database.execute(
            "UPDATE lease SET token = NULL, revisions = ? WHERE pair = ? AND annotator = ?", (row.revision, *key)
        )
        if row.revision == 1:
            self._database.execute("UPDATE pair SET places = places - 1 WHERE number = ?", (row.pair,))

    def by_submission(self, annotator: int, submission: str) -> AnnotationRow | None:
        """Return an annotator's annotation by the id that their client gave it."""
        return self._one("annotator = ? AND submission = ?", (annotator, submission))

    def latest(self, annotator: int, now: int) -> AnnotationRow | None:
        """Return an annotator's last annotation of a pair whose answers have not expired."""
        lasts = f"EXISTS (SELECT 1 FROM pair WHERE pair.number = annotation.pair AND {_LASTS})"  # noqa: S608
        return self._one(f"annotator = ? AND {lasts} ORDER BY number DESC LIMIT 1", (annotator, now))

    def newest(self, annotator: int, pair: int) -> AnnotationRow | None:
        """Return the newest revision of an annotator's annotation of a pair."""
        return self._one("annotator = ? AND pair = ? AND is_latest = 1", (annotator, pair))

    def _one(self, where: str, values: tuple[object, ...]) -> AnnotationRow | None:
        rows = self._database.execute(f"SELECT {_ANNOTATION} FROM annotation WHERE {where}", values)  # noqa: S608
        return _annotation(rows[0]) if rows else None

    def annotated(self, annotator: int) -> dict[int, int]:
        """Return how many pairs an annotator has annotated, by the number of the batch."""
        rows = self._database.execute(
            "SELECT batch, count(*) FROM lease WHERE annotator = ? AND revisions > 0 GROUP BY batch",
            (annotator,),
        )
        return {batch: int(count) for batch, count in rows}

    def of_selections(self, numbers: Sequence[int]) -> dict[int, int]:
        """Return how many annotations there are of pairs with an answer of each selection; none is left out."""
        if not numbers:
            return {}
        places = ", ".join("?" for _ in numbers)
        parts = [
            f"SELECT {side} AS selection, annotation.number AS made FROM pair JOIN annotation ON "  # noqa: S608
            f"annotation.pair = pair.number WHERE is_latest = 1 AND {side} IN ({places})"
            for side in ("a_selection", "b_selection")
        ]
        rows = self._database.execute(
            f"SELECT selection, count(*) FROM ({' UNION '.join(parts)}) AS made GROUP BY selection",  # noqa: S608
            (*numbers, *numbers),
        )
        return {number: int(count) for number, count in rows}

    def last_number(self) -> int:
        """Return the number of the annotation that was made last; 0 if there is none."""
        return int(self._database.execute("SELECT coalesce(max(number), 0) FROM annotation")[0][0])

    def judged(self, batch: int | None = None, until: int | None = None) -> Iterator[Judged]:
        """Yield the newest annotations, of one batch or of all, by pair and annotator, a page at a time.

        With `until`, they are those that were the newest when the last annotation had that number.
        """
        newest, ends = ("is_latest = 1", ()) if until is None else (_NEWEST_UNTIL, (until, until))
        which, values = ("", ()) if batch is None else ("AND pair.batch = ? ", (batch,))
        last = (0, 0)
        while True:
            rows = self._database.execute(
                f"SELECT {_JUDGED} FROM annotation JOIN pair ON pair.number = annotation.pair "  # noqa: S608
                f"WHERE {newest} AND (annotation.pair, annotation.annotator) > (?, ?) {which}"
                "ORDER BY annotation.pair, annotation.annotator LIMIT ?",
                (*ends, *last, *values, PAGE),
            )
            yield from map(_judged, rows)
            if len(rows) < PAGE:
                return
            last = rows[-1][1:3]

    def skips(self, batch: int | None = None) -> dict[int, int]:
        """Return how many pairs each annotator has skipped, in one batch or in all."""
        which, values = ("", ()) if batch is None else ("AND batch = ?", (batch,))
        rows = self._database.execute(
            "SELECT annotator, count(*) FROM lease "  # noqa: S608
            f"WHERE skipped IS NOT NULL {which} GROUP BY annotator",
            values,
        )
        return {annotator: int(count) for annotator, count in rows}

    def remaining(self, annotator: int, now: int, batch: int) -> int:
        """Return how many pairs of a batch there are for an annotator now, the one that they hold included.

        There are none in a closed batch, and none whose answers have expired.
        """
        if self._database.execute("SELECT 1 FROM batch WHERE number = ? AND closed IS NOT NULL", (batch,)):
            return 0
        [(places,)] = self._database.execute(
            f"SELECT count(*) FROM pair WHERE batch = ? AND places > 0 AND {_LASTS}",  # noqa: S608
            (batch, now),
        )
        [(done,)] = self._database.execute(
            "SELECT count(*) FROM lease JOIN pair ON pair.number = lease.pair WHERE annotator = ? AND lease.batch = ? "  # noqa: S608
            f"AND places > 0 AND (revisions > 0 OR skipped IS NOT NULL) AND {_LASTS}",
            (annotator, batch, now),
        )
        # Those whose last places others hold; few, since only leases of the last half an hour count.
        held = self._database.execute(
            "SELECT number FROM pair JOIN (SELECT lease.pair AS held, count(*) AS holders FROM lease "  # noqa: S608
            "WHERE annotator <> ? AND revisions = 0 AND token IS NOT NULL AND lease.expires > ? GROUP BY lease.pair) "
            f"AS others ON number = held WHERE batch = ? AND places > 0 AND {_LASTS} AND holders >= places "
            "AND NOT EXISTS (SELECT 1 FROM lease AS own WHERE "
            "own.pair = number AND own.annotator = ? AND (own.revisions > 0 OR own.skipped IS NOT NULL))",
            (annotator, now, batch, now, annotator),
        )
        return int(places) - int(done) - len(held)


def _lease(row: Row) -> LeaseRow:
    pair, annotator, batch, left_is_a, *rest = row
    return LeaseRow(pair, annotator, batch, bool(left_is_a), *rest)


def _annotation(row: Row) -> AnnotationRow:
    values = list(row)
    values[7:11] = [*map(bool, values[7:10]), tuple(orjson.loads(values[10]))]
    return AnnotationRow(*values)


def _judged(row: Row) -> Judged:
    values: list[Any] = list(row[:15])
    values[5:8] = map(bool, values[5:8])
    values[11] = tuple(orjson.loads(values[11]))
    return Judged(*(*values, Side(*row[15:22]), Side(*row[22:])))
