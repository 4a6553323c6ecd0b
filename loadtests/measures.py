"""What one repeat's samples say: rates, percentiles, goodput, waste. Pure.

Latencies count from when a request was due, and are those of the answered alone: read them together with how many were refused, failed
or left. Goodput counts everybody but those who left on purpose. Nothing here compares; see `winnow.loadtests.estimates`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from winnow.loadtests.load_generator import Sample

MOST_ERRORS = 10
"""Different errors that are told, the most frequent ones."""
LATE_SECONDS = 0.02
LATE_SHARE = 0.1
"""A tester is too late if the p99 of its lag exceeds both LATE_SECONDS and this share of the median latency."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values: the least one that `percent` of them do not exceed.

    It is a value that occurred, never one between two; below 100 values the 99th is the largest.
    """
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Nearest-rank percentiles of so many spans, in seconds."""

    count: int
    p50: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, spans: Iterable[float | None]) -> Quantiles | None:
        """Those of the spans that are known; None if none is."""
        known = sorted(span for span in spans if span is not None)
        if not known:
            return None
        return cls(len(known), *(percentile(known, percent) for percent in (50, 90, 99, 100)))


@dataclass(frozen=True, slots=True)
class Measures:
    """One repeat in numbers. Rates are a second; None is what cannot be said.

    `seconds` go from when the first request was due to the end of the last reply. `offered_rate` is that of the intended arrivals,
    the other rates are of answered requests over `seconds`. `whole` is the latency of whole answers, `score_tail` what scoring added
    to sampling. `good` were answered within the SLO, `good_share` is their share of all who did not leave. `wasted_tokens` were
    sampled for others than the winners, counted where a system tells the winner's. `candidates_used` counts answers by their K.
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
    tokens_rate: float
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
        """Whether the tester, not the system, may have been what was slow."""
        if self.lag is None:
            return False
        return self.lag.p99 > max(LATE_SECONDS, LATE_SHARE * (self.whole.p50 if self.whole else 0.0))


def measure(samples: Sequence[Sample], slo_ms: float | None = None) -> Measures:
    """The measures of one repeat; `slo_ms` is the latency in milliseconds up to which an answer is good."""
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
        tokens_rate=_rate(sum(sample.reply.sampled_tokens for sample in answered), seconds),
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
        errors=dict(errors.most_common(MOST_ERRORS)),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _waste(answered: Iterable[Sample]) -> tuple[int | None, float | None]:
    """Tokens sampled for others than winners, and their share; None where no winner's tokens are known."""
    told = [sample.reply for sample in answered if sample.reply.winner_tokens]
    sampled = sum(reply.sampled_tokens for reply in told)
    if not sampled:
        return None, None
    wasted = sampled - sum(reply.winner_tokens for reply in told)
    return wasted, wasted / sampled
