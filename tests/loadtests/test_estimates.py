from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtests.targets import sample
from winnow.loadtests.estimates import QUANTITIES, Agreement, agreement, estimates, ratios
from winnow.loadtests.measures import measure
from winnow.models.statistics import interval_of_repeats


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_an_estimate_lies_within_its_range(values: list[float]) -> None:
    found = interval_of_repeats([*values, None])
    assert found
    assert min(values) == found.low <= found.value <= found.high == max(values)
    assert found.count == len(values)


def test_ratios_are_computed_repeat_by_repeat() -> None:
    ours = [measure([sample(0, 0.0, seconds)]) for seconds in (2.0, 20.0, 200.0)]
    theirs = [measure([sample(0, 0.0, seconds)]) for seconds in (1.0, 10.0, 400.0)]
    found = ratios(ours, theirs)["whole_p50_ms"]
    assert (found.value, found.low, found.high) == (2.0, 0.5, 2.0)
    assert "score_tail_p50_ms" not in ratios(ours, theirs)


def test_every_quantity_can_be_read() -> None:
    reply = {"first_byte": 0.5, "score_tail": 0.1, "sampled_tokens": 4, "winner_tokens": 1, "candidates": 2}
    found = estimates([measure([sample(0, 0.0, 1.0, **reply), sample(1, 1.0, 1.0, **reply)], slo_ms=1)])
    assert list(found) == [quantity.name for quantity in QUANTITIES]


@given(st.lists(st.sampled_from("ab"), max_size=20))
def test_agreement_counts_requests_that_both_answered(texts: list[str]) -> None:
    ours = [sample(number, 0.0, 1.0, text="a") for number in range(len(texts))]
    theirs = [sample(number, 5.0, 2.0, text=text) for number, text in enumerate(texts)]
    lost = [sample(number, 0.0, 1.0, kind="refused") for number in range(len(texts), len(texts) + 3)]
    found = agreement(ours + lost, [*reversed(theirs), *lost])
    assert found == Agreement(len(texts), texts.count("a"))
    assert found.share == (pytest.approx(texts.count("a") / len(texts)) if texts else None)
