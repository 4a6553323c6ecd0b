"""The batches of a store: guidelines, batches, pairs, and how far they are; in SQL that both databases share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace

from winnow.server.store.annotation_rows import BEING_MADE, BatchCounts, BatchRow, GuidelinesRow, NewPair, PairRow
from winnow.server.store.database import Database

PAGE = 256
DELETED = 2000
"""Pairs that are deleted at once."""
_BATCH = "number, id, name, policy, seed, overlap, guidelines, created, closed"
SIDES = ", ".join(
    f"{side}_{column}"
    for side in "ab"
    for column in ("selection", "index", "origin", "safety", "helpfulness", "combined", "length")
)
"""The columns of both sides of a pair."""
_PAIR = "number, batch, a_selection, a_index, b_selection, b_index, places"


class Batches:
    """The batches in `database`, whose schema is there. What must hold together is done in a `transaction`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.transaction = database.transaction

    def guidelines(self, version: int | None = None) -> GuidelinesRow | None:
        """Return a version of the guidelines, or the newest; None if it is not here."""
        where = "" if version is None else "WHERE version = ?"
        rows = self._database.execute(
            f"SELECT version, created, text FROM guidelines {where} ORDER BY version DESC LIMIT 1",  # noqa: S608
            () if version is None else (version,),
        )
        return GuidelinesRow(*rows[0]) if rows else None

    def add_guidelines(self, row: GuidelinesRow) -> None:
        """Add a version; one that is there stays as it is."""
        self._database.execute(
            "INSERT INTO guidelines (version, created, text) VALUES (?, ?, ?) ON CONFLICT (version) DO NOTHING",
            (row.version, row.created, row.text),
        )

    def add(
        self,
        id: str,
        name: str,
        policy: str,
        seed: int,
        overlap: int,
        guidelines: int,
        now: int,
        closed: int | None = None,
    ) -> BatchRow:
        """Add a batch without pairs."""
        self._database.execute(
            "INSERT INTO batch (id, name, policy, seed, overlap, guidelines, created, closed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (id, name, policy, seed, overlap, guidelines, now, closed),
        )
        row = self.get(id)
        assert row
        return row

    def add_pairs(self, batch: BatchRow, pairs: Sequence[NewPair]) -> None:
        """Add pairs to a batch, in this order."""
        self._database.execute_many(
            f"INSERT INTO pair (batch, {SIDES}, propensity, expires, places) "  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (batch.number, *astuple(pair.a), *astuple(pair.b), pair.propensity, pair.expires, batch.overlap)
                for pair in pairs
            ],
        )

    def get(self, id: str) -> BatchRow | None:
        """Return a batch by its id."""
        rows = self._database.execute(f"SELECT {_BATCH} FROM batch WHERE id = ?", (id,))  # noqa: S608
        return BatchRow(*rows[0]) if rows else None

    def named(self, name: str, policy: str) -> BatchRow | None:
        """Return the oldest open batch with this name and policy."""
        rows = self._database.execute(
            f"SELECT {_BATCH} FROM batch WHERE name = ? AND policy = ? AND closed IS NULL "  # noqa: S608
            "ORDER BY number LIMIT 1",
            (name, policy),
        )
        return BatchRow(*rows[0]) if rows else None

    def all(self) -> list[BatchRow]:
        """Return every batch, the newest first."""
        rows = self._database.execute(f"SELECT {_BATCH} FROM batch ORDER BY number DESC")  # noqa: S608
        return [BatchRow(*row) for row in rows]

    def close(self, number: int, now: int) -> None:
        """Close a batch; one that is closed stays so."""
        self._database.execute("UPDATE batch SET closed = ? WHERE number = ? AND closed IS NULL", (now, number))

    def open(self, number: int) -> None:
        """Open a batch."""
        self._database.execute("UPDATE batch SET closed = NULL WHERE number = ?", (number,))

    def unfinished(self, before: int) -> list[int]:
        """Return the numbers of batches whose making began before a time and has not ended."""
        rows = self._database.execute("SELECT number FROM batch WHERE closed = ? AND created < ?", (BEING_MADE, before))
        return [row[0] for row in rows]

    def delete(self, number: int) -> None:
        """Delete a batch that was never opened, a part of its pairs at a time: others write in between."""
        while pairs := self._database.execute("SELECT number FROM pair WHERE batch = ? LIMIT ?", (number, DELETED)):
            with self.transaction():
                self._database.execute_many("DELETE FROM pair WHERE number = ?", pairs)
        self._database.execute("DELETE FROM batch WHERE number = ?", (number,))

    def pair(self, number: int) -> PairRow | None:
        """Return a pair."""
        rows = self._database.execute(f"SELECT {_PAIR} FROM pair WHERE number = ?", (number,))  # noqa: S608
        return PairRow(*rows[0]) if rows else None

    def same_pair(self, batch: int, a: tuple[int, int], b: tuple[int, int]) -> int | None:
        """Return the number of the pair of two answers in a batch, in either order."""
        rows = self._database.execute(
            "SELECT number FROM pair WHERE batch = ? AND ((a_selection = ? AND a_index = ? AND b_selection = ? AND "
            "b_index = ?) OR (a_selection = ? AND a_index = ? AND b_selection = ? AND b_index = ?)) LIMIT 1",
            (batch, *a, *b, *b, *a),
        )
        return int(rows[0][0]) if rows else None

    def last_pair(self, batch: int) -> int:
        """Return the number of the newest pair of a batch; 0 if it has none."""
        return int(self._database.execute("SELECT coalesce(max(number), 0) FROM pair WHERE batch = ?", (batch,))[0][0])

    def paired(self, first: int, last: int) -> set[frozenset[tuple[int, int]]]:
        """Return the pairs of any batch with an answer of the selections from `first` to `last`."""
        rows = self._database.execute(
            "SELECT a_selection, a_index, b_selection, b_index FROM pair WHERE a_selection BETWEEN ? AND ? "
            "UNION ALL SELECT a_selection, a_index, b_selection, b_index FROM pair WHERE b_selection BETWEEN ? AND ?",
            (first, last, first, last),
        )
        return {frozenset(((row[0], row[1]), (row[2], row[3]))) for row in rows}

    def paired_among(self, selections: Iterable[int]) -> set[frozenset[tuple[int, int]]]:
        """Return the pairs of any batch with an answer of these selections."""
        wanted = sorted(set(selections))
        found: set[frozenset[tuple[int, int]]] = set()
        for start in range(0, len(wanted), PAGE):
            part = wanted[start : start + PAGE]
            places = ", ".join("?" for _ in part)
            sides = [
                f"SELECT a_selection, a_index, b_selection, b_index FROM pair WHERE {side} IN ({places})"  # noqa: S608
                for side in ("a_selection", "b_selection")
            ]
            rows = self._database.execute(" UNION ALL ".join(sides), (*part, *part))
            found.update(frozenset(((row[0], row[1]), (row[2], row[3]))) for row in rows)
        return found

    def counts(self, now: int, batch: int | None = None) -> dict[int, BatchCounts]:
        """Return how far batches are, by their numbers; those without pairs are left out."""
        where, values = ("", ()) if batch is None else ("WHERE batch = ?", (batch,))
        pairs = self._database.execute(
            f"SELECT batch, count(*), min(expires) FROM pair {where} GROUP BY batch",  # noqa: S608
            values,
        )
        work = self._database.execute(
            "SELECT batch, sum(CASE WHEN revisions > 0 THEN 1 ELSE 0 END), "  # noqa: S608
            "count(DISTINCT CASE WHEN revisions > 0 THEN annotator END), "
            f"sum(CASE WHEN skipped IS NOT NULL THEN 1 ELSE 0 END) FROM lease {where} GROUP BY batch",
            values,
        )
        held = self._database.execute(
            "SELECT batch, count(*) FROM lease WHERE token IS NOT NULL AND expires > ? AND revisions = 0 "
            "GROUP BY batch",
            (now,),
        )
        counts = {number: BatchCounts(count, expires=expires) for number, count, expires in pairs}
        for number, done, annotators, skipped in work:
            sums = {"annotations": int(done), "skipped": int(skipped)}  # decimals, elsewhere
            if number in counts:  # else another server made the batch just now
                counts[number] = replace(counts[number], annotators=annotators, **sums)
        for number, leased in held:
            if number in counts:
                counts[number] = replace(counts[number], leased=leased)
        return counts
