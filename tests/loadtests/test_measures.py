from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtests.targets import sample
from winnow.loadtests.estimates import estimates
from winnow.loadtests.measures import Quantiles, measure
from winnow.models.statistics import percentile

DURATIONS = st.lists(st.floats(0, 1e4), min_size=1, max_size=300)


@given(DURATIONS, st.sampled_from([50, 90, 99, 100]))
def test_a_percentile_is_the_least_value_that_this_share_does_not_exceed(durations: list[float], percent: int) -> None:
    found = percentile(sorted(durations), percent)
    assert found in durations
    assert 100 * sum(duration <= found for duration in durations) >= percent * len(durations)
    assert 100 * sum(duration < found for duration in durations) < percent * len(durations)


@given(DURATIONS)
def test_quantiles_ascend(durations: list[float]) -> None:
    found = Quantiles.of([*durations, None])
    assert found
    assert found.count == len(durations)
    assert found.p50 <= found.p90 <= found.p99 <= found.largest == max(durations)


def test_measures_of_a_repeat() -> None:
    common = {"candidates": 4, "sampled_tokens": 40, "winner_tokens": 10, "score_tail": 0.5}
    samples = [
        sample(0, 0.0, 1.0, first_byte=0.5, **common),
        sample(1, 1.0, 3.0, lag=0.25, first_byte=2.0, **{**common, "candidates": 2}),
        sample(2, 2.0, 0.1, kind="refused", error="full"),
        sample(3, 3.0, 7.0, kind="failed", error="full"),
        sample(4, 4.0, 1.0, kind="left"),
    ]
    found = measure(samples, slo_ms=1500)
    assert (found.requests, found.answered, found.refused, found.failed, found.left) == (5, 2, 1, 1, 1)
    assert found.seconds == 10.0
    assert (found.offered_rate, found.answered_rate, found.candidates_rate, found.tokens_rate) == (1.0, 0.2, 0.6, 8.0)
    assert found.first_byte == Quantiles(2, 0.5, 1.0, 1.0, 1.0)
    assert found.whole == Quantiles(2, 1.0, 3.0, 3.0, 3.0)
    assert found.lag
    assert found.lag.largest == 0.25
    assert (found.good, found.goodput, found.good_share) == (1, 0.1, 0.25)
    assert (found.wasted_tokens, found.wasted_share) == (60, 0.75)
    assert found.candidates_used == {2: 1, 4: 1}
    assert found.errors == {"full": 2}


def test_measures_that_were_not_reported_are_unknown() -> None:
    found = measure([sample(0, 0.0, 1.0)])
    assert found.first_byte is found.score_tail is found.wasted_share is found.goodput is found.offered_rate is None


def test_tokens_are_known_only_if_every_answer_reports_them() -> None:
    """A server without usage has no token rate: 0 would be a measurement."""
    known, unknown = sample(0, 0.0, 1.0, sampled_tokens=40), sample(1, 1.0, 1.0)
    failed = sample(2, 1.5, 0.1, kind="failed", error="no")
    assert measure([known, failed]).tokens_rate == 25.0
    assert measure([sample(0, 0.0, 1.0, sampled_tokens=0)]).tokens_rate == 0
    for samples in ([unknown], [known, unknown], [failed], []):
        assert measure(samples).tokens_rate is None
        assert "tokens_rate" not in estimates([measure(samples)])


def test_measures_of_no_samples() -> None:
    found = measure([], slo_ms=1)
    assert (found.requests, found.answered_rate, found.good_share, found.whole, found.tester_was_late) == (
        0,
        0,
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("lag", "latency", "late"), [(0.01, 0.01, False), (0.05, 1.0, False), (0.05, 0.1, True), (3.0, 9.0, True)]
)
def test_a_late_tester_is_late_relative_to_the_latencies(lag: float, latency: float, late: bool) -> None:
    assert measure([sample(0, 0.0, latency, lag=lag)]).tester_was_late is late
