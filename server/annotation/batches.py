"""Batches as they are shown, and how one is closed."""

from __future__ import annotations

import re
import secrets

from winnow.clients.schema import Batch, BatchList, Estimate
from winnow.models.errors import NotStored
from winnow.models.statistics import Interval
from winnow.server.store.annotation_rows import BEING_MADE, BatchCounts, BatchRow
from winnow.server.store.store import Store

_ID = re.compile(r"batch-[0-9a-f]{16}")


def new_id() -> str:
    """Return the id of a new batch."""
    return f"batch-{secrets.token_hex(8)}"


def batch_by_id(store: Store, id: str) -> BatchRow:
    """Return a batch by its id.

    Raises:
        NotStored: there is none.
    """
    found = store.batches.get(id) if _ID.fullmatch(id) else None
    if found is None:
        raise NotStored("there is no batch by this id", "batch")
    return found


def shown(row: BatchRow, counts: BatchCounts, *, wholly: bool = True) -> Batch:
    """Return a batch as it is shown: `wholly`, or without what annotators need not know."""
    return Batch(
        id=row.id,
        name=row.name,
        policy=row.policy if wholly else None,  # type: ignore[arg-type]
        seed=row.seed if wholly else None,
        overlap=row.overlap,
        created=row.created,
        closed=row.created if row.closed == BEING_MADE else row.closed,
        guidelines=row.guidelines,
        pairs=counts.pairs,
        wanted=counts.pairs * row.overlap,
        annotations=counts.annotations,
        skipped=counts.skipped if wholly else None,
        leased=counts.leased,
        annotators=counts.annotators,
        expires=counts.expires,
    )


def listed(store: Store, now: int, *, wholly: bool) -> BatchList:
    """Return every batch, the newest first."""
    counts = store.batches.counts(now)
    return BatchList(
        data=[shown(row, counts.get(row.number, BatchCounts()), wholly=wholly) for row in store.batches.all()]
    )


def one(store: Store, id: str, now: int) -> Batch:
    """Return a batch.

    Raises:
        NotStored: there is none by this id.
    """
    row = batch_by_id(store, id)
    return shown(row, store.batches.counts(now, row.number).get(row.number, BatchCounts()))


def close(store: Store, id: str, now: int) -> Batch:
    """Close a batch: no more of its pairs are given out; those that are held may still be annotated.

    Raises:
        NotStored: there is none by this id.
    """
    store.batches.close(batch_by_id(store, id).number, now)
    return one(store, id, now)


def estimate(share: Interval) -> Estimate | None:
    """Return a share as it is shown; None of no cases."""
    return Estimate(value=share.value, low=share.low, high=share.high, n=share.count) if share.count else None
