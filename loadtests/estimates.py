"""What several repeats say together, and how two systems compare. Pure.

A measure's value is the median of its repeats', with the range from the least to the greatest. Whatever the distribution, the range of
R independent repeats holds its median with probability 1 − 2^(1−R): 75 % for 3 repeats, 94 % for 5, 97 % for 6. Within one repeat there
is no interval: requests that queue behind each other are not independent, and a bootstrap over them would be too sure of itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from winnow.loadtests.load_generator import Sample
from winnow.loadtests.measures import Measures, Quantiles


@dataclass(frozen=True, slots=True)
class Estimate:
    """The median of so many repeats, and the range that they span."""

    median: float
    low: float
    high: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that measures have: its name in results, its title and unit in tables, and how to read it (None: not known)."""

    name: str
    title: str
    unit: str
    read: Callable[[Measures], float | None]


def _of(field: str, quantile: str) -> Callable[[Measures], float | None]:
    """Reads a quantile in milliseconds."""

    def read(measures: Measures) -> float | None:
        quantiles: Quantiles | None = getattr(measures, field)
        return None if quantiles is None else 1000 * float(getattr(quantiles, quantile))

    return read


def _share(field: str) -> Callable[[Measures], float | None]:
    return lambda measures: 100 * getattr(measures, field) / measures.requests if measures.requests else None


QUANTITIES = (
    Quantity("offered_rate", "offered", "requests/s", lambda measures: measures.offered_rate),
    Quantity("answered_rate", "answered", "requests/s", lambda measures: measures.answered_rate),
    Quantity("candidates_rate", "candidates", "1/s", lambda measures: measures.candidates_rate),
    Quantity("tokens_rate", "sampled tokens", "1/s", lambda measures: measures.tokens_rate),
    Quantity("whole_p50_ms", "answer p50", "ms", _of("whole", "p50")),
    Quantity("whole_p90_ms", "answer p90", "ms", _of("whole", "p90")),
    Quantity("whole_p99_ms", "answer p99", "ms", _of("whole", "p99")),
    Quantity("whole_max_ms", "answer max", "ms", _of("whole", "largest")),
    Quantity("first_byte_p50_ms", "first byte p50", "ms", _of("first_byte", "p50")),
    Quantity("first_byte_p99_ms", "first byte p99", "ms", _of("first_byte", "p99")),
    Quantity("score_tail_p50_ms", "scoring tail p50", "ms", _of("score_tail", "p50")),
    Quantity("score_tail_p99_ms", "scoring tail p99", "ms", _of("score_tail", "p99")),
    Quantity("goodput", "within SLO", "requests/s", lambda measures: measures.goodput),
    Quantity(
        "good_percent", "within SLO", "%", lambda m: None if m.good_share is None else 100 * m.good_share
    ),
    Quantity("refused_percent", "refused", "%", _share("refused")),
    Quantity("failed_percent", "failed", "%", _share("failed")),
    Quantity("left_percent", "left", "%", _share("left")),
    Quantity(
        "wasted_percent", "wasted tokens", "%", lambda m: None if m.wasted_share is None else 100 * m.wasted_share
    ),
    Quantity("lag_p99_ms", "tester's lag p99", "ms", _of("lag", "p99")),
)  # fmt: skip
"""Everything that is estimated, in the order of tables."""


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The estimate from one value a repeat; None if none is known."""
    known = [value for value in values if value is not None]
    return Estimate(statistics.median(known), min(known), max(known), len(known)) if known else None


def estimates(repeats: Sequence[Measures]) -> Mapping[str, Estimate]:
    """Every quantity that is known, by name."""
    found = {quantity.name: estimate(map(quantity.read, repeats)) for quantity in QUANTITIES}
    return {name: value for name, value in found.items() if value is not None}


def ratios(ours: Sequence[Measures], theirs: Sequence[Measures]) -> Mapping[str, Estimate]:
    """Each quantity of ours divided by theirs, repeat by repeat; shares are left out, and what is 0 or unknown on a side."""
    found: dict[str, Estimate | None] = {}
    for quantity in QUANTITIES:
        if quantity.unit == "%" or quantity.name in ("offered_rate", "lag_p99_ms"):
            continue
        pairs = [(quantity.read(a), quantity.read(b)) for a, b in zip(ours, theirs, strict=False)]
        found[quantity.name] = estimate(a / b for a, b in pairs if a and b)
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many requests both systems answered, and to how many of them with the same text."""

    both: int
    same: int

    @property
    def share(self) -> float | None:
        """Of those that both answered; None of none."""
        return self.same / self.both if self.both else None

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.both + other.both, self.same + other.same)


def agreement(ours: Iterable[Sample], theirs: Iterable[Sample]) -> Agreement:
    """Compares the texts of requests with equal numbers."""
    texts = {sample.number: sample.reply.text for sample in theirs if sample.reply.kind == "answered"}
    both = [s for s in ours if s.reply.kind == "answered" and s.number in texts]
    return Agreement(len(both), sum(sample.reply.text == texts[sample.number] for sample in both))
