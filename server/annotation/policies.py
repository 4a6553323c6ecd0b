"""Pair policies: which two answers of a selection people are asked about, and which come first. Pure.

Two answers must differ in their texts, and have some; each text counts once, by its best candidate.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from random import Random

from winnow.clients.schema import PolicyName
from winnow.models.types import ScoredCandidate, Selection
from winnow.server.store.annotation_rows import NewPair, Side
from winnow.server.store.rows import Stored

AMONG_BEST = 4
"""The policy `margin` looks at so many of the best answers: near ties far below them teach little."""
Taken = AbstractSet[frozenset[tuple[int, int]]]
"""The pairs that batches already have."""
_Two = tuple[ScoredCandidate, ScoredCandidate]


@dataclass(frozen=True, slots=True)
class Found:
    """A pair that a policy found; those with the lowest `priority` become a batch.

    `is_drawn` says that the priority is a lot, so that the batch is a random sample of what was found.
    """

    priority: float
    pair: NewPair
    is_drawn: bool


def lot(seed: int, *keys: object) -> float:
    """Return a number from 0 to 1 that depends on the seed and the keys alone."""
    digest = hashlib.blake2b(repr((seed, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def content(stored: Stored) -> str:
    """Return a digest of a prompt and all answers to it, without ids: runs with equal answers are drawn from alike."""
    texts = [item.candidate.text for item in stored.record.selection.scored]
    return hashlib.blake2b(repr((stored.record.digest, texts)).encode(), digest_size=16).hexdigest()


def side(stored: Stored, item: ScoredCandidate) -> Side:
    """Return an answer as a side of a pair."""
    reward, candidate = item.reward, item.candidate
    return Side(
        stored.number,
        candidate.index,
        stored.origin,
        reward.safety_logit,
        reward.helpfulness_logit,
        reward.combined_logit,
        len(candidate.text),
    )


def distinct(selection: Selection) -> list[ScoredCandidate]:
    """Return the answers with text, each text once, best first."""
    ranked = (selection.scored[position] for position in selection.ranking)
    texts: dict[str, ScoredCandidate] = {}
    for item in ranked:
        if not item.candidate.is_empty:
            texts.setdefault(item.candidate.text, item)
    return list(texts.values())


def choose(policy: PolicyName, stored: Stored, seed: int, key: object, taken: Taken) -> Found | None:
    """Return the pair that a policy takes from one selection, if there is one that is not taken.

    Lots are drawn by `seed` and `key`, which tells the selection from others.
    """
    found = distinct(stored.record.selection)
    number = stored.number
    pairs = [
        (one, other)
        for one, other in _POOLS[policy](found)
        if frozenset(((number, one.candidate.index), (number, other.candidate.index))) not in taken
    ]
    if not pairs:
        return None
    rank = _RANKS.get(policy)
    if rank is None:
        two = Random(f"{seed} {key}").choice(pairs)
        return Found(lot(seed, key), _pair(stored, two, 1 / len(pairs)), is_drawn=True)
    worth, two = min(((rank(*two), two) for two in pairs), key=lambda ranked: ranked[0])
    return Found(worth, _pair(stored, two, 1.0), is_drawn=False) if worth < float("inf") else None


def _pair(stored: Stored, two: _Two, propensity: float) -> NewPair:
    first, second = sorted((side(stored, item) for item in two), key=lambda one: one.index)
    return NewPair(first, second, propensity, stored.expires)


def _every(found: Sequence[ScoredCandidate]) -> Iterator[_Two]:
    return itertools.combinations(found, 2)


def _best(found: Sequence[ScoredCandidate]) -> Iterator[_Two]:
    return itertools.combinations(found[:AMONG_BEST], 2)


def _first_two(found: Sequence[ScoredCandidate]) -> Iterator[_Two]:
    return itertools.combinations(found[:2], 2)


def _margin(one: ScoredCandidate, other: ScoredCandidate) -> float:
    """Return how far apart logit(R_c) is: the reward model finds the nearest two hardest to tell apart."""
    return abs(one.reward.combined_logit - other.reward.combined_logit)


def _agreement(one: ScoredCandidate, other: ScoredCandidate) -> float:
    """Return how little the two reward models contradict each other; infinite if not at all."""
    ours, theirs = one.reward, other.reward
    if ours.helpfulness_logit is None or theirs.helpfulness_logit is None:
        return float("inf")
    safety, helpfulness = (
        ours.safety_logit - theirs.safety_logit,
        ours.helpfulness_logit - theirs.helpfulness_logit,
    )
    return -min(abs(safety), abs(helpfulness)) if safety * helpfulness < 0 else float("inf")


_POOLS: dict[PolicyName, Callable[[Sequence[ScoredCandidate]], Iterator[_Two]]] = {
    "margin": _best,
    "disagree": _every,
    "top": _first_two,
    "random": _every,
}
"""The pairs of one selection that a policy chooses from."""
_RANKS: dict[PolicyName, Callable[[ScoredCandidate, ScoredCandidate], float]] = {
    "margin": _margin,
    "disagree": _agreement,
}
"""The ranks of policies that do not draw lots: the least comes first."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A selection as one of several to the same prompt: `key` is its temperature, or its policy."""

    number: int
    key: object


def matched(digest: str, variants: Sequence[Variant], seed: int) -> Iterator[tuple[float, int, int]]:
    """Yield selections to one prompt two by two, with different keys, each at most once, and their lots."""
    piles: dict[object, list[Variant]] = {}
    for variant in sorted(variants, key=lambda variant: lot(seed, digest, variant.number)):
        piles.setdefault(variant.key, []).append(variant)
    while True:
        largest = sorted(piles.values(), key=len, reverse=True)[:2]
        if len(largest) < 2 or not largest[1]:
            return
        first, second = (pile.pop().number for pile in largest)
        yield lot(seed, digest, first, second), min(first, second), max(first, second)


def across(first: Stored, second: Stored, seed: int, taken: Taken) -> NewPair | None:
    """Return a pair of one answer of each selection, at random, if there is one that is not taken."""
    pairs = [
        (one, other)
        for one in distinct(first.record.selection)
        for other in distinct(second.record.selection)
        if one.candidate.text != other.candidate.text
        and frozenset(((first.number, one.candidate.index), (second.number, other.candidate.index))) not in taken
    ]
    if not pairs:
        return None
    one, other = Random(f"{seed} {first.id} {second.id}").choice(pairs)
    ends = [time for time in (first.expires, second.expires) if time is not None]
    return NewPair(side(first, one), side(second, other), 1 / len(pairs), min(ends, default=None))
