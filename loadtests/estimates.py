"""Estimates over several repeats, and comparisons of two targets. Pure.

An estimate is the median over the repeats with their range; see `winnow.models.statistics.interval_of_repeats`
for its coverage. Within one repeat there is no interval: requests that queue behind each other are not
independent, and a bootstrap over them would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from winnow.loadtests.load_generator import Sample
from winnow.loadtests.measures import Measures, Quantiles
from winnow.models.statistics import Interval, interval_of_repeats


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number derived from measures: name in results, title and unit in tables, and reader (None: unknown)."""

    name: str
    title: str
    unit: str
    read: Callable[[Measures], float | None]


def _of(field: str, quantile: str) -> Callable[[Measures], float | None]:
    """Return a reader of a quantile in milliseconds."""

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
"""All quantities that are estimated, in the order of tables."""


def estimates(repeats: Sequence[Measures]) -> Mapping[str, Interval]:
    """Return the estimate of every known quantity, by name."""
    return _known({quantity.name: interval_of_repeats(map(quantity.read, repeats)) for quantity in QUANTITIES})


def ratios(ours: Sequence[Measures], theirs: Sequence[Measures]) -> Mapping[str, Interval]:
    """Return each of our quantities divided by theirs, repeat by repeat.

    Left out: shares, the offered rate, the tester's lag, and a quantity that is 0 or unknown on a side in every repeat.
    """
    found: dict[str, Interval | None] = {}
    for quantity in QUANTITIES:
        if quantity.unit == "%" or quantity.name in ("offered_rate", "lag_p99_ms"):
            continue
        pairs = [(quantity.read(a), quantity.read(b)) for a, b in zip(ours, theirs, strict=False)]
        found[quantity.name] = interval_of_repeats(a / b for a, b in pairs if a and b)
    return _known(found)


def _known(found: Mapping[str, Interval | None]) -> Mapping[str, Interval]:
    return {name: interval for name, interval in found.items() if interval is not None}


@dataclass(frozen=True, slots=True)
class Agreement:
    """The number of requests that both targets answered, and of those the number with the same text."""

    both: int
    same: int

    @property
    def share(self) -> float | None:
        """Share with the same text; None if both answered no request."""
        return self.same / self.both if self.both else None

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.both + other.both, self.same + other.same)


def agreement(ours: Iterable[Sample], theirs: Iterable[Sample]) -> Agreement:
    """Compare the texts of requests with equal numbers."""
    texts = {sample.number: sample.reply.text for sample in theirs if sample.reply.kind == "answered"}
    both = [sample for sample in ours if sample.reply.kind == "answered" and sample.number in texts]
    return Agreement(len(both), sum(sample.reply.text == texts[sample.number] for sample in both))
