"""The making of batches: the store is read and written a part at a time, so that others have their turns."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from winnow.clients.schema import Batch, GivenPair, NewBatch, SentPair
from winnow.models.errors import NotStored, RequestError, StoreError
from winnow.server.annotation import guidelines
from winnow.server.annotation.batches import new_id, one
from winnow.server.annotation.policies import Found, Variant, across, choose, content, matched, side
from winnow.server.store.annotation_rows import BEING_MADE, BatchRow, NewPair
from winnow.server.store.rows import Stored
from winnow.server.store.store import Store

PAGE = 128
"""Answers that are read at once: a writer of the same file waits for it, some 10 ms."""
INSERTED = 2000
"""Pairs that are written at once."""
ABANDONED_SECONDS = 3600
"""Nobody makes a batch for so long: the server was killed meanwhile."""
FROM_PLAYGROUND = "From the playground"
NONE_FOUND = {
    "margin": "no recorded answer of this time has two candidates with different texts that are in no batch yet",
    "disagree": "in no recorded answer of this time do the two reward models order two candidates oppositely",
    "temperatures": "no prompt of this time was answered at two temperatures",
    "models": "no prompt of this time was answered by two models",
}


@dataclass(frozen=True, slots=True)
class Range:
    """The answers of a store by the time that they were `given`, up to the number `until`."""

    store: Store
    given: tuple[int, int]
    until: int
    now: int

    def pages(self) -> Iterator[list[Stored]]:
        """Yield them in order, some at a time; the store may be written to meanwhile."""
        after = 0
        while page := self.store.page(after, self.until, self.now, self.given, PAGE):
            yield page
            after = page[-1].number


def make(store: Store, wanted: NewBatch, now: int) -> Batch:
    """Make a batch and return it; `store` is a connection that others do not wait for.

    Raises:
        RequestError: no pair was found, or a given one cannot be.
        StoreError: the store cannot be used.
    """
    for left in store.batches.unfinished(now - ABANDONED_SECONDS):
        store.batches.delete(left)
    if wanted.given is not None:
        named = [_named(store, item, now, f"given[{number}].") for number, item in enumerate(wanted.given)]
        pairs = list({pair.key: pair for pair in reversed(named)}.values())
    else:
        given = (wanted.since or 0, 2**62 if wanted.until is None else wanted.until)
        reach = Range(store, given, store.last_number(), now)
        pairs = (_across if wanted.policy in ("temperatures", "models") else _within)(wanted, reach)
    if not pairs:
        raise _none(wanted)
    return _written(store, wanted, pairs, now)


def _within(wanted: NewBatch, reach: Range) -> list[NewPair]:
    """Return the first pairs by priority, one of a selection each, over all selections in reach."""
    best: list[tuple[float, int, Found]] = []  # a heap of the least priorities, the greatest first
    eligible = 0
    for found in _found(wanted, reach):
        eligible += 1
        entry = (-found.priority, -eligible, found)
        if len(best) < (wanted.pairs or 0):
            heapq.heappush(best, entry)
        else:
            heapq.heappushpop(best, entry)
    share = len(best) / max(eligible, 1)
    chosen = [found for *_, found in sorted(best, key=lambda entry: entry[:2], reverse=True)]
    return [
        replace(found.pair, propensity=found.pair.propensity * share) if found.is_drawn else found.pair
        for found in chosen
    ]


def _found(wanted: NewBatch, reach: Range) -> Iterator[Found]:
    seen: Counter[str] = Counter()
    for page in reach.pages():
        taken = reach.store.batches.paired(page[0].number, page[-1].number)
        for stored in page:
            equals = content(stored)
            seen[equals] += 1
            if found := choose(wanted.policy, stored, wanted.seed, (equals, seen[equals]), taken):
                yield found


def _across(wanted: NewBatch, reach: Range) -> list[NewPair]:
    """Return pairs of answers to one prompt from two selections, drawn by lot."""
    models = {origin: policy_of(manifest) for origin, manifest in reach.store.manifests().items()}
    variants: dict[str, list[Variant]] = {}
    for stored in itertools.chain.from_iterable(reach.pages()):
        key = models[stored.origin] if wanted.policy == "models" else stored.record.arms[0].temperature
        variants.setdefault(stored.record.digest, []).append(Variant(stored.number, key))
    drawn = sorted(itertools.chain.from_iterable(matched(*group, wanted.seed) for group in variants.items()))
    pairs: list[NewPair] = []
    looked = 0
    for _, first, second in drawn:
        looked += 1
        if pair := _of_two(reach, first, second, wanted.seed):
            pairs.append(pair)
        if len(pairs) == wanted.pairs:
            break
    share = looked / max(len(drawn), 1)
    return [replace(pair, propensity=pair.propensity * share) for pair in pairs]


def _of_two(reach: Range, first: int, second: int, seed: int) -> NewPair | None:
    store = reach.store
    one, other = store.numbered(first, reach.now), store.numbered(second, reach.now)
    return across(one, other, seed, store.batches.paired(first, first)) if one and other else None


def policy_of(manifest: Mapping[str, Any]) -> object:
    """Return what tells the policy of an origin from others: its fingerprint, or its id."""
    model = manifest["models"]["policy"]
    return model.get("sha256") or model["id"]


def _named(store: Store, given: GivenPair, now: int, where: str = "") -> NewPair:
    """Return the pair that a request names.

    Raises:
        NotStored: the completion is not here.
        RequestError: it has no such candidates, or their texts are equal.
    """
    stored = store.get(given.completion, now) if given.completion.isascii() and given.completion.isprintable() else None
    if stored is None:
        raise NotStored(f"{where}completion: no completion by this id is stored", f"{where}completion")
    items = {item.candidate.index: item for item in stored.record.selection.scored}
    if not items.keys() >= set(given.candidates):
        raise RequestError(f"{where}candidates: name two that were scored, by their index", f"{where}candidates")
    one, other = (items[index] for index in given.candidates)
    if one.candidate.text == other.candidate.text:
        raise RequestError(f"{where}candidates: the two answers are the same text", f"{where}candidates")
    return NewPair(side(stored, one), side(stored, other), 1.0, stored.expires)


def _written(store: Store, wanted: NewBatch, pairs: list[NewPair], now: int) -> Batch:
    """Write a batch, which opens once it is whole.

    Its pairs stand in random order, so that what is done when it is closed early is a sample of them.
    """
    Random(wanted.seed).shuffle(pairs)
    row = _begun(store, wanted, now)
    try:
        for start in range(0, len(pairs), INSERTED):
            _add(store, row, pairs[start : start + INSERTED])
        if not store.batches.last_pair(row.number):
            raise _none(wanted)
        store.batches.open(row.number)
    except BaseException:
        with contextlib.suppress(StoreError):  # then the next making deletes it, once it is old
            store.batches.delete(row.number)
        raise
    return one(store, row.id, now)


def _none(wanted: NewBatch) -> RequestError:
    """Return what to say of a batch without pairs."""
    if wanted.given is not None:
        return NotStored("given: the completions are not stored any more", "given")
    return RequestError(f"policy: {NONE_FOUND.get(wanted.policy, NONE_FOUND['margin'])}", "policy")


def _begun(store: Store, wanted: NewBatch, now: int) -> BatchRow:
    told = guidelines.newest(store, now)
    with store.batches.transaction():
        return store.batches.add(
            new_id(), wanted.name, wanted.policy, wanted.seed, wanted.overlap, told.version, now, BEING_MADE
        )


def _add(store: Store, row: BatchRow, pairs: list[NewPair]) -> None:
    """Add pairs; those whose answers are gone meanwhile are left out, as are those that another batch took meanwhile.

    Only what is `given` may be in several batches.
    """
    selections = {side.selection for pair in pairs for side in (pair.a, pair.b)}
    with store.batches.transaction():
        there = store.existing(selections)
        taken = set() if row.policy == "given" else store.batches.paired_among(selections)
        store.batches.add_pairs(
            row,
            [pair for pair in pairs if {pair.a.selection, pair.b.selection} <= there and pair.key not in taken],
        )


def send(store: Store, given: GivenPair, now: int) -> SentPair:
    """Send a pair from the playground to annotation, into an open batch of that name, which is made if need be.

    Raises:
        NotStored: the completion is not here.
        RequestError: it has no such candidates, or their texts are equal.
    """
    pair = _named(store, given, now)
    told = guidelines.newest(store, now)
    with store.batches.transaction():
        batch = store.batches.named(FROM_PLAYGROUND, "given")
        if batch is None:
            batch = store.batches.add(new_id(), FROM_PLAYGROUND, "given", 0, 1, told.version, now)
        number = store.batches.same_pair(batch.number, pair.a.key, pair.b.key)
        if number is None:
            store.batches.add_pairs(batch, [pair])
            number = store.batches.last_pair(batch.number)
    return SentPair(pair=f"pair-{number}", batch=batch.id)
