"""Stores with answers and annotations, made without a server, for tests of what is derived from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.runs import record, scored
from tests.server.store.databases import served
from winnow.clients.schema import Accepted, Batch, LeasedPair, NewAnnotation, NewBatch
from winnow.models.combiner import combine
from winnow.models.types import Message
from winnow.server.annotation.making import make
from winnow.server.annotation.work import Desk
from winnow.server.store.location import location
from winnow.server.store.opening import open_store
from winnow.server.store.preparing import Preparer
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.redaction import Redactor
from winnow.server.store.rows import NewRow, Served
from winnow.server.store.store import Store

NAMES = Pseudonyms(b"key")
PREPARER = Preparer(Redactor(()), NAMES, 90)
NOW = 1_700_000_000
MANIFEST: dict[str, Any] = {
    "input": {"name": "served answers"},
    "models": {
        "policy": {"id": "winnow-demo", "sha256": "1" * 64, "template": "llama2"},
        "safety": {"id": "safety-rm", "sha256": "2" * 64},
        "helpfulness": {"id": "helpfulness-rm", "sha256": "3" * 64},
    },
    "settings": {"combiner": "llama2", "empty_last": True},
}
Rule = Callable[[LeasedPair], dict[str, Any]]
"""What an annotator says of a pair: the fields of an annotation that are not the default."""
_submissions = itertools.count()


def row(number: int, **fields: Any) -> NewRow:
    """A served answer with eight candidates, as it is written."""
    return PREPARER.row(served(number, **fields))


def answered(number: int, *answers: tuple[str, float, float], question: str = "Q?", **fields: Any) -> NewRow:
    """A served answer whose candidates have these texts and logits, of safety and of helpfulness."""
    items = [
        scored(index, text, combine(False, safety, helpfulness))
        for index, (text, safety, helpfulness) in enumerate(answers)
    ]
    made = record(1, Random(number), answers=items, failures=(), messages=(Message("user", question),), is_safety=False)
    values = {"created": NOW + number, "model": "winnow-demo", "n": 1, "temperature": 1.0, **fields}
    return PREPARER.row(Served(id=f"chatcmpl-{number:032x}", selection=made.selection, **values))


def filled(place: str, *rows: NewRow, manifest: dict[str, Any] = MANIFEST) -> Store:
    """The store at `place`, with these answers."""
    store = open_store(location(place), NAMES)
    store.add(rows, store.origin(manifest))
    return store


def batch(store: Store, now: int = NOW, **fields: Any) -> Batch:
    """Make a batch."""
    return make(store, NewBatch.model_validate({"name": "Week 1", "policy": "random", "pairs": 100, **fields}), now)


def desk(store: Store, name: str = "anna", now: int = NOW) -> Desk:
    """An annotator's place."""
    return Desk(store, NAMES, name, now)


def choice(pair: LeasedPair, **fields: Any) -> NewAnnotation:
    """An annotation of a leased pair, with a submission of its own."""
    values = {"choice": 2, "left_safe": True, "right_safe": True, "submission": f"submission-{next(_submissions)}"}
    return NewAnnotation.model_validate({**values, "lease": pair.lease, **fields})


def annotate_all(place: Desk, rule: Rule) -> Iterator[tuple[LeasedPair, Accepted]]:
    """Annotate by `rule` until nothing remains, and yield each pair with what was answered."""
    while pair := place.lease().pair:
        yield pair, place.annotate(choice(pair, **rule(pair)))
