"""The work of an annotator: the next pair, a choice, a skip, and a change of mind. Each is one transaction.

A pair is held by a lease of half an hour. Never more than `overlap` annotators have a pair, annotated or held, and an
annotator does not get a pair twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from winnow.clients.schema import (
    Accepted,
    AnswerText,
    DialogMessage,
    EarlierChoice,
    Lease,
    LeasedPair,
    Mine,
    MyBatch,
    NewAnnotation,
    Remaining,
)
from winnow.models.errors import LeaseExpired, RequestError
from winnow.server.annotation.batches import batch_by_id
from winnow.server.store.annotation_rows import AnnotationRow, LeaseRow, PairRow
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.rows import Stored
from winnow.server.store.store import Store

LEASE_SECONDS = 1800


def flipped(choice: int, left_is_a: bool) -> int:
    """Return a choice between left and right as one between a and b, or the other way round."""
    return choice if left_is_a else 9 - choice


def order(leases: Iterable[LeaseRow], annotator: int, now: int, lot: bool) -> bool:
    """Return whether a pair's answer a goes left: as for fewer of its annotators so far; if there are none, by `lot`.

    So the second one of a pair sees the mirror image of the first, the fourth that of the third, and so on.
    """
    balance = sum(
        1 if lease.left_is_a else -1 for lease in leases if lease.annotator != annotator and lease.is_held(now)
    )
    return balance < 0 if balance else lot


@dataclass(frozen=True, slots=True)
class Desk:
    """The place of the annotator called `name` at a store, at one moment, `now`."""

    store: Store
    pseudonyms: Pseudonyms
    name: str
    now: int

    def lease(self, batch: str | None = None) -> Lease:
        """Return the pair that the annotator holds, else the next one, of one batch or of the oldest open one.

        Raises:
            NotStored: there is no such batch.
        """
        work = self.store.annotations
        with work.transaction():
            wanted = batch_by_id(self.store, batch).number if batch is not None else None
            annotator = work.annotator(self.name)
            held = work.open_lease(annotator, self.now, wanted)
            shown = self._shown(held) if held else None
            if shown is None:
                shown = self._next(annotator, wanted)
            if shown is None:
                return Lease(pair=None, remaining=0)
            number = batch_by_id(self.store, shown.batch).number if wanted is None else wanted
            return Lease(pair=shown, remaining=work.remaining(annotator, self.now, number))

    def annotate(self, given: NewAnnotation) -> Accepted:
        """Keep a choice; the same submission again changes nothing.

        Raises:
            LeaseExpired: the lease is not this annotator's, was used, or has expired and the pair is others' now.
            RequestError: another choice has this submission's id.
        """
        work = self.store.annotations
        with work.transaction():
            annotator = work.annotator(self.name)
            if known := work.by_submission(annotator, given.submission):
                if not _same(known, given):
                    raise RequestError("submission: another choice was sent with this id; make a new one", "submission")
                return self._accepted(known)
            lease, pair = self._held(given.lease, annotator)
            row = self._row(given, lease, pair)
            work.add(row)
            return self._accepted(row)

    def skip(self, token: str, reason: str) -> Remaining:
        """Give a pair back, for others.

        Raises:
            LeaseExpired: the lease is not this annotator's, or was used.
        """
        work = self.store.annotations
        with work.transaction():
            annotator = work.annotator(self.name)
            lease = work.by_token(token, annotator)
            pair = self.store.batches.pair(lease.pair) if lease else None
            if lease is None or pair is None:
                raise LeaseExpired
            work.skip(lease, reason, self.now)
            return Remaining(remaining=work.remaining(annotator, self.now, pair.batch))

    def undo(self) -> Lease:
        """Return the annotator's last annotation of answers that are still here, to be revised as they were shown."""
        work = self.store.annotations
        with work.transaction():
            annotator = work.annotator(self.name)
            last = work.latest(annotator, self.now)
            if last is None:
                return Lease(pair=None, remaining=0)
            pair = self.store.batches.pair(last.pair)
            assert pair
            lease = self._granted(pair, annotator, last.left_is_a, last.revision)
            shown = self._shown(lease)
            return Lease(pair=shown, remaining=work.remaining(annotator, self.now, pair.batch))

    def mine(self) -> Mine:
        """Return the annotator's progress, in open batches and in those where they have annotated."""
        work = self.store.annotations
        with work.transaction():
            annotator = work.annotator(self.name)
        done = work.annotated(annotator)
        batches = [
            MyBatch(
                id=batch.id,
                name=batch.name,
                annotated=done.get(batch.number, 0),
                remaining=work.remaining(annotator, self.now, batch.number),
            )
            for batch in self.store.batches.all()
            if batch.number in done or not batch.closed
        ]
        return Mine(annotations=sum(done.values()), batches=batches)

    def _next(self, annotator: int, wanted: int | None) -> LeasedPair | None:
        """Lease the next pair of a batch, or of any, the oldest first."""
        for batch in reversed(self.store.batches.all()):
            if batch.closed or wanted not in (None, batch.number):
                continue
            pair = self.store.annotations.next_pair(annotator, self.now, batch.number)
            if pair:
                leases = self.store.annotations.leases(pair.number)
                left_is_a = order(leases, annotator, self.now, self.pseudonyms.lot(pair.number, annotator))
                return self._shown(self._granted(pair, annotator, left_is_a, 0))
        return None

    def _granted(self, pair: PairRow, annotator: int, left_is_a: bool, revisions: int) -> LeaseRow:
        token = f"lease-{secrets.token_hex(16)}"
        lease = LeaseRow(
            pair.number, annotator, pair.batch, left_is_a, token, self.now + LEASE_SECONDS, None, revisions
        )
        self.store.annotations.grant(lease)
        return lease

    def _held(self, token: str, annotator: int) -> tuple[LeaseRow, PairRow]:
        """Return a lease that may be used: one that has expired, too, while nobody else has its place.

        Raises:
            LeaseExpired: it may not.
        """
        work = self.store.annotations
        lease = work.by_token(token, annotator)
        pair = self.store.batches.pair(lease.pair) if lease else None
        if lease is None or pair is None:
            raise LeaseExpired
        others = [one for one in work.leases(pair.number) if one.annotator != annotator and one.is_held(self.now)]
        waiting = sum(one.revisions == 0 for one in others)
        if lease.revisions == 0 and pair.places <= waiting:
            raise LeaseExpired
        return lease, pair

    def _row(self, given: NewAnnotation, lease: LeaseRow, pair: PairRow) -> AnnotationRow:
        batch = next(one for one in self.store.batches.all() if one.number == pair.batch)
        left, right = given.left_safe, given.right_safe
        return AnnotationRow(
            pair=pair.number,
            annotator=lease.annotator,
            submission=given.submission,
            revision=lease.revisions + 1,
            created=self.now,
            choice=flipped(given.choice, lease.left_is_a),
            shown=given.choice,
            left_is_a=lease.left_is_a,
            a_safe=left if lease.left_is_a else right,
            b_safe=right if lease.left_is_a else left,
            flags=tuple(sorted(set(given.flags))),
            comment=given.comment,
            active_ms=given.active_ms,
            guidelines=batch.guidelines,
        )

    def _accepted(self, row: AnnotationRow) -> Accepted:
        work, pair = self.store.annotations, self.store.batches.pair(row.pair)
        assert pair
        return Accepted(
            submission=row.submission,
            revision=row.revision,
            questioned=row.is_questioned,
            annotated=work.annotated(row.annotator).get(pair.batch, 0),
            remaining=work.remaining(row.annotator, self.now, pair.batch),
        )

    def _shown(self, lease: LeaseRow) -> LeasedPair | None:
        """Return a leased pair as its annotator sees it; None if its answers have expired."""
        pair = self.store.batches.pair(lease.pair)
        assert pair
        assert lease.token
        a = self.store.numbered(pair.a_selection, self.now)
        b = a if pair.b_selection == pair.a_selection else self.store.numbered(pair.b_selection, self.now)
        if a is None or b is None:
            return None
        texts = [AnswerText(text=text_of(a, pair.a_index)), AnswerText(text=text_of(b, pair.b_index))]
        left, right = texts if lease.left_is_a else reversed(texts)
        batch = next(one for one in self.store.batches.all() if one.number == pair.batch)
        return LeasedPair(
            lease=lease.token,
            expires=lease.expires,
            batch=batch.id,
            batch_name=batch.name,
            guidelines=batch.guidelines,
            messages=[DialogMessage(role=one.role, content=one.content) for one in a.record.messages],
            left=left,
            right=right,
            earlier=self._earlier(lease) if lease.revisions else None,
        )

    def _earlier(self, lease: LeaseRow) -> EarlierChoice:
        row = self.store.annotations.newest(lease.annotator, lease.pair)
        assert row
        left, right = (row.a_safe, row.b_safe) if lease.left_is_a else (row.b_safe, row.a_safe)
        return EarlierChoice(
            choice=flipped(row.choice, lease.left_is_a),
            left_safe=left,
            right_safe=right,
            flags=list(row.flags),  # type: ignore[arg-type]
            comment=row.comment,
        )


def text_of(stored: Stored, index: int) -> str:
    """Return the text of a candidate by its index."""
    return next(item.candidate.text for item in stored.record.selection.scored if item.candidate.index == index)


def _same(row: AnnotationRow, given: NewAnnotation) -> bool:
    """Whether an annotation is the one that is sent again."""
    left, right = (row.a_safe, row.b_safe) if row.left_is_a else (row.b_safe, row.a_safe)
    told = (row.shown, left, right, set(row.flags), row.comment)
    return told == (given.choice, given.left_safe, given.right_safe, set(given.flags), given.comment)
