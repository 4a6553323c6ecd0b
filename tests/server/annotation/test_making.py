"""The making of batches while others make them, too, and while the store fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.annotated import NAMES, NOW, answered, batch, filled
from winnow.models.errors import NotStored, RequestError
from winnow.server.annotation import making
from winnow.server.annotation.batches import close
from winnow.server.annotation.batches import one as batch_of
from winnow.server.store.annotation_rows import NewPair
from winnow.server.store.location import location
from winnow.server.store.opening import open_store
from winnow.server.store.store import Store

ANSWERS = [answered(number, ("good", 2, 2), ("bad", 1, -1), question=f"Q{number}") for number in range(6)]
GIVEN = {
    "policy": "given",
    "pairs": None,
    "given": [{"completion": one.id, "candidates": [0, 1]} for one in ANSWERS],
}


def before_written(monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> None:
    """Do something once between the finding of pairs and their writing."""
    written = making._written

    def first(*values: Any) -> Any:
        monkeypatch.setattr(making, "_written", written)
        meanwhile()
        return written(*values)

    monkeypatch.setattr(making, "_written", first)


def pairs(store: Store) -> int:
    return sum(one.pairs for one in store.batches.counts(NOW).values())


def test_batches_that_are_made_at_once_share_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "s.db")
    store, other = filled(place, *ANSWERS), open_store(location(place), NAMES)
    before_written(monkeypatch, lambda: batch(other, policy="random", pairs=2))
    assert batch(store, policy="top").pairs == 4
    assert pairs(store) == 6
    store.close()
    other.close()


def test_a_batch_whose_pairs_are_all_taken_meanwhile_is_refused_and_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(str(tmp_path / "s.db"), *ANSWERS)
    before_written(monkeypatch, lambda: batch(store, policy="random"))
    with pytest.raises(RequestError, match="in no batch yet"):
        batch(store, policy="top")
    assert [one.policy for one in store.batches.all()] == ["random"]
    assert batch(store, **GIVEN).pairs == 6  # what is given may be in several
    before_written(monkeypatch, lambda: [store.delete(one.id) for one in ANSWERS])
    with pytest.raises(NotStored):
        batch(store, **GIVEN)
    assert len(store.batches.all()) == 2
    store.close()


def test_a_batch_that_cannot_be_written_takes_no_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "INSERTED", 2)
    store = filled(str(tmp_path / "s.db"), *ANSWERS)
    add = making._add

    def failing(store: Store, row: Any, some: Sequence[NewPair]) -> None:
        add(store, row, list(some))
        if pairs(store) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(making, "_add", failing)
    with pytest.raises(KeyboardInterrupt):
        batch(store)
    assert (store.batches.all(), pairs(store)) == ([], 0)
    monkeypatch.setattr(making, "_add", add)
    assert batch(store).pairs == 6
    store.close()


def test_what_a_killed_server_left_is_deleted_once_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "INSERTED", 2)
    store = filled(str(tmp_path / "s.db"), *ANSWERS)
    made = batch(store, pairs=1)
    close(store, made.id, NOW)  # closed in the second that it was made in, which is another thing
    with monkeypatch.context() as killed:
        killed.setattr(store.batches, "open", lambda number: (_ for _ in ()).throw(KeyboardInterrupt))
        killed.setattr(store.batches, "delete", lambda number: None)
        with pytest.raises(KeyboardInterrupt):
            batch(store)
    [left, _] = store.batches.all()
    assert batch_of(store, left.id, NOW).closed == NOW
    soon, later = NOW + making.ABANDONED_SECONDS, NOW + making.ABANDONED_SECONDS + 1
    with pytest.raises(RequestError):
        batch(store, soon)
    assert batch(store, later).pairs == 5
    assert [one.id for one in store.batches.all()][1:] == [made.id]
    store.close()
