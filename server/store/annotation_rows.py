"""The rows of preference collection: batches, pairs, leases and annotations, as they are written and read."""

from __future__ import annotations

from dataclasses import dataclass

BEING_MADE = -1
"""The time of closing of a batch that has not been opened yet, because not all of its pairs are there."""


@dataclass(frozen=True, slots=True)
class GuidelinesRow:
    """A version of the guidelines."""

    version: int
    created: int
    text: str


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch. Times are seconds since 1970; an open one is not `closed`."""

    number: int
    id: str
    name: str
    policy: str
    seed: int
    overlap: int
    guidelines: int
    created: int
    closed: int | None


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """The progress of a batch: its pairs, what was done with them, and when the first of its answers expires."""

    pairs: int = 0
    annotations: int = 0
    annotators: int = 0
    skipped: int = 0
    leased: int = 0
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One answer of a pair: where it is, its scores as logits, and its length in characters."""

    selection: int
    index: int
    origin: int
    safety: float
    helpfulness: float | None
    combined: float
    length: int

    @property
    def key(self) -> tuple[int, int]:
        """A key that other answers do not share."""
        return self.selection, self.index


@dataclass(frozen=True, slots=True)
class NewPair:
    """Two answers to choose between, in canonical order, and the probability with which a policy chose them."""

    a: Side
    b: Side
    propensity: float
    expires: int | None

    @property
    def key(self) -> frozenset[tuple[int, int]]:
        """A key that other pairs do not share, whatever the order of the two."""
        return frozenset((self.a.key, self.b.key))


@dataclass(frozen=True, slots=True)
class Judged:
    """A newest annotation with its pair and the origins of its two answers, for statistics and exports."""

    batch: int
    pair: int
    annotator: int
    choice: int
    shown: int
    left_is_a: bool
    a_safe: bool
    b_safe: bool
    active_ms: int
    revision: int
    created: int
    flags: tuple[str, ...]
    comment: str
    guidelines: int
    propensity: float
    a: Side
    b: Side

    @property
    def is_questioned(self) -> bool:
        """Whether the chosen answer was called unsafe and the other one safe."""
        return is_questioned(self.choice, self.a_safe, self.b_safe)

    @property
    def chose_a(self) -> bool:
        """Whether a was chosen, the first in canonical order."""
        return self.choice <= 4

    @property
    def rating(self) -> int:
        """The clearness of the choice: from 3, significantly better, to 0, negligibly better or unsure."""
        return 4 - self.choice if self.chose_a else self.choice - 5


def is_questioned(choice: int, a_safe: bool, b_safe: bool) -> bool:
    """Whether a choice, from 1 to 8, is of an answer called unsafe over one called safe."""
    return a_safe != b_safe and (choice <= 4) != a_safe


@dataclass(frozen=True, slots=True)
class PairRow:
    """A pair by its number, as far as showing it needs."""

    number: int
    batch: int
    a_selection: int
    a_index: int
    b_selection: int
    b_index: int
    places: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The relation of an annotator to a pair; see the migration."""

    pair: int
    annotator: int
    batch: int
    left_is_a: bool
    token: str | None
    expires: int
    skipped: int | None
    revisions: int

    def is_held(self, now: int) -> bool:
        """Whether it keeps a place of the pair: it is annotated, or leased at this time."""
        return self.revisions > 0 or (self.token is not None and self.expires > now)


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """An annotation; `choice` and the labels are canonical, `shown` is the choice as it was clicked."""

    pair: int
    annotator: int
    submission: str
    revision: int
    created: int
    choice: int
    shown: int
    left_is_a: bool
    a_safe: bool
    b_safe: bool
    flags: tuple[str, ...]
    comment: str
    active_ms: int
    guidelines: int

    @property
    def is_questioned(self) -> bool:
        """Whether the chosen answer was called unsafe and the other one safe."""
        return is_questioned(self.choice, self.a_safe, self.b_safe)
