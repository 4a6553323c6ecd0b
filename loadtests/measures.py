"""The measures of one repeat: rates, percentiles, goodput and waste, from its samples. Pure.

Latencies count from when a request was due, and are those of answered requests only: read them together with
the numbers of refused, failed and left requests. Goodput is a share of all requests except those whose clients
left on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from winnow.loadtests.load_generator import Sample
from winnow.models.statistics import percentile

MAX_ERRORS = 10
"""Different error messages that are kept, the most frequent ones."""
LATE_SECONDS = 0.02
LATE_SHARE = 0.1
"""The load tester is too late if the p99 of its lag exceeds both LATE_SECONDS and this share of the median latency."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Nearest-rank percentiles of `count` durations, in seconds."""

    count: int
    p50: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, durations: Iterable[float | None]) -> Quantiles | None:
        """Return the quantiles of the durations that are known; None if none is."""
        known = sorted(duration for duration in durations if duration is not None)
        if not known:
            return None
        return cls(len(known), *(percentile(known, percent) for percent in (50, 90, 99, 100)))


@dataclass(frozen=True, slots=True)
class Measures:
    """One repeat in numbers. Rates are per second; None is unknown.

    `seconds` is the time from when the first request was due to the end of the last reply. `offered_rate` is
    the rate of the intended arrivals; the other rates are of answered requests over `seconds`. `tokens_rate` is
    unknown unless every answer reports its tokens: a part of them would be too low a rate. `whole` is the
    latency of whole answers, `score_tail` the time from the last finished candidate to the last score. `good`
    requests were answered within the SLO; `good_share` is their share of all requests whose clients did not
    leave. `wasted_tokens` were sampled for candidates that did not win, over the answers that report their
    winner's tokens. `candidates_used` counts answers by their K.
    """

    requests: int
    answered: int
    refused: int
    failed: int
    left: int
    seconds: float
    offered_rate: float | None
    answered_rate: float
    candidates_rate: float
    tokens_rate: float | None
    first_byte: Quantiles | None
    whole: Quantiles | None
    score_tail: Quantiles | None
    lag: Quantiles | None
    good: int | None
    goodput: float | None
    good_share: float | None
    wasted_tokens: int | None
    wasted_share: float | None
    candidates_used: Mapping[int, int]
    errors: Mapping[str, int]

    @property
    def tester_was_late(self) -> bool:
        """Whether latencies may be the load tester's own, because it sent requests late."""
        if self.lag is None:
            return False
        return self.lag.p99 > max(LATE_SECONDS, LATE_SHARE * (self.whole.p50 if self.whole else 0.0))


def measure(samples: Sequence[Sample], slo_ms: float | None = None) -> Measures:
    """Return the measures of one repeat; `slo_ms` is the latency objective in milliseconds."""
    answered = [sample for sample in samples if sample.reply.kind == "answered"]
    kinds = Counter(sample.reply.kind for sample in samples)
    due = [sample.intended for sample in samples]
    seconds = max((sample.reply.done for sample in samples), default=0.0) - min(due, default=0.0)
    good = None if slo_ms is None else sum(1000 * sample.latency <= slo_ms for sample in answered)
    stayed = len(samples) - kinds["left"]
    wasted, share = _waste(answered)
    errors = Counter(sample.reply.error for sample in samples if sample.reply.error)
    return Measures(
        requests=len(samples),
        answered=len(answered),
        refused=kinds["refused"],
        failed=kinds["failed"],
        left=kinds["left"],
        seconds=seconds,
        offered_rate=(len(due) - 1) / (max(due) - min(due)) if len(set(due)) > 1 else None,
        answered_rate=_rate(len(answered), seconds),
        candidates_rate=_rate(sum(sample.reply.candidates for sample in answered), seconds),
        tokens_rate=_tokens_rate(answered, seconds),
        first_byte=Quantiles.of(sample.first_byte for sample in answered),
        whole=Quantiles.of(sample.latency for sample in answered),
        score_tail=Quantiles.of(sample.reply.score_tail for sample in answered),
        lag=Quantiles.of(sample.lag for sample in samples),
        good=good,
        goodput=None if good is None else _rate(good, seconds),
        good_share=None if good is None or not stayed else good / stayed,
        wasted_tokens=wasted,
        wasted_share=share,
        candidates_used=dict(sorted(Counter(sample.reply.candidates for sample in answered).items())),
        errors=dict(errors.most_common(MAX_ERRORS)),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _tokens_rate(answered: Sequence[Sample], seconds: float) -> float | None:
    """Return the sampled tokens per second; None if an answer does not report its tokens, or there is no answer."""
    tokens = [sample.reply.sampled_tokens for sample in answered]
    known = [count for count in tokens if count is not None]
    return _rate(sum(known), seconds) if known and len(known) == len(tokens) else None


def _waste(answered: Iterable[Sample]) -> tuple[int | None, float | None]:
    """Return the tokens of candidates that did not win, and their share; None if no winner's tokens are known."""
    counts = ((sample.reply.sampled_tokens, sample.reply.winner_tokens) for sample in answered)
    known = [(sampled, winner) for sampled, winner in counts if sampled is not None and winner]
    total = sum(sampled for sampled, _ in known)
    if not total:
        return None, None
    wasted = total - sum(winner for _, winner in known)
    return wasted, wasted / total
