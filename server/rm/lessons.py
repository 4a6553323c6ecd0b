"""Lessons of a file's rows for a reward model: comparisons with their margins, and labels of single answers.

Labelled answers to one prompt that have different labels make comparisons, too: the good ones over the bad ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from winnow.models.errors import BadLine
from winnow.server.rm.comparisons import Comparison, rows_of
from winnow.server.rm.margins import Margins, margin_of
from winnow.server.rm.reading import Place
from winnow.server.rm.rows import Answer, Body, Labelled

Kind = Literal["safety", "helpfulness"]
MOST_CONTRASTS = 4
"""Comparisons that the labelled answers to one prompt make at most, so that no prompt outweighs the others."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A comparison with the labels of its answers, or one labelled answer.

    `margin` is the comparison's m(r), None where its row has neither a rating nor a margin.
    """

    comparison: Comparison | None
    labels: tuple[Labelled, ...]
    margin: float | None = None

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answers that are compared, or the one that is labelled."""
        if self.comparison:
            return (*self.comparison.better, *self.comparison.worse)
        return tuple(label.answer for label in self.labels)

    @property
    def prompt(self) -> str:
        """The key of the prompt that it is about."""
        return self.answers[0].prompt


def lessons_of(body: Body, kind: Kind, margins: Margins) -> list[Lesson]:
    """Return what a row teaches a model of this kind.

    Raises:
        BadLine: it teaches nothing, or is malformed.
    """
    found = rows_of(body, kind)
    comparisons = [item for item in found if isinstance(item, Comparison)]
    labels = tuple(item for item in found if isinstance(item, Labelled))
    if not comparisons:
        return [Lesson(None, (label,)) for label in labels]
    for comparison in comparisons:
        _require_sense(comparison, labels)
    return [Lesson(comparison, labels, margin_of(body, margins)) for comparison in comparisons]


def _require_sense(comparison: Comparison, labels: Sequence[Labelled]) -> None:
    """Refuse a bad answer that is preferred to a good one: the two losses would pull against each other."""
    bad = {label.answer for label in labels if label.is_unsafe}
    good = {label.answer for label in labels if not label.is_unsafe}
    if bad & set(comparison.better) and good & set(comparison.worse):
        raise BadLine("ambiguous", "the preferred answer has the bad label, and the other one the good label")


def contrasted(places: Sequence[Place[Lesson]]) -> list[Place[Lesson]]:
    """Return the lessons with comparisons among labelled answers to one prompt in place of those answers alone.

    Each prompt makes `MOST_CONTRASTS` at most. Which ones depends on the answers, never on the order of the rows.
    """
    singles: dict[str, list[Place[Lesson]]] = {}
    for place in places:
        if place.item.comparison is None:
            singles.setdefault(place.item.prompt, []).append(place)
    made: list[Place[Lesson]] = []
    used: set[int] = set()
    for together in singles.values():
        for good, bad in _pairs(together):
            labels = tuple(one.item.labels[0] for one in (good, bad) if id(one) not in used)
            used |= {id(good), id(bad)}
            comparison = Comparison((good.item.answers[0],), (bad.item.answers[0],))
            made.append(Place(good.file, good.line, Lesson(comparison, labels)))
    return [place for place in places if id(place) not in used] + made


def _pairs(places: Sequence[Place[Lesson]]) -> Iterator[tuple[Place[Lesson], Place[Lesson]]]:
    """Yield pairs of a good and a bad answer, in which every answer stands before the more numerous come again."""
    ordered = sorted(places, key=lambda place: hashlib.blake2b(place.item.answers[0].text.encode()).digest())
    good = [place for place in ordered if not place.item.labels[0].is_unsafe]
    bad = [place for place in ordered if place.item.labels[0].is_unsafe]
    long, short = (good, bad) if len(good) >= len(bad) else (bad, good)
    turns = ((one, short[(place + turn) % len(short)]) for turn in range(len(short)) for place, one in enumerate(long))
    differing = ((one, other) for one, other in turns if one.item.answers != other.item.answers)
    for _, (one, other) in zip(range(MOST_CONTRASTS), differing, strict=False):
        yield (one, other) if long is good else (other, one)
