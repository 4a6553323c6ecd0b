from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.server.cli.comparison import (
    FULL_PRECISION_SHARE,
    LOW_PRECISION_SHARE,
    RMS_PART,
    Comparison,
    Reference,
    Scores,
    Served,
)

REFERENCE: Scores = [[-4.0, 1.0, 2.0, 5.0], [-3.0, 0.5, 2.5, 4.0], [-5.0, 0.0, 3.0, 6.0]]


def comparison(
    reference: Scores,
    alone: Scores,
    together: Scores | None = None,
    *,
    cached: Scores | None = None,
    served: str = "float32",
    computed: str = "float32",
    failure: str | None = None,
) -> Comparison:
    return Comparison(
        Served("safety", served, alone, cached or alone, alone if together is None else together, failure),
        Reference(computed, "cpu", reference),
    )


def mapped(scores: Scores, change: float = 1.0, shift: float = 0.0) -> Scores:
    return [[change * score + shift for score in row] for row in scores]


def with_score(scores: Scores, prompt: int, answer: int, score: float) -> Scores:
    return [
        [score if (row, column) == (prompt, answer) else old for column, old in enumerate(line)]
        for row, line in enumerate(scores)
    ]


logits = st.floats(-8, 8).map(lambda x: round(x, 3))
pairs_of_scores = st.integers(2, 4).flatmap(
    lambda answers: st.lists(
        st.tuples(*[st.lists(logits, min_size=answers, max_size=answers)] * 3), min_size=1, max_size=5
    )
)


def unzipped(rows: list[tuple[list[float], list[float], list[float]]], dtype: str = "float32") -> Comparison:
    reference, alone, together = ([list(row[which]) for row in rows] for which in range(3))
    return comparison(reference, alone, together, served=dtype)


@given(pairs_of_scores, st.randoms(use_true_random=False))
def test_the_order_of_prompts_and_answers_changes_nothing(
    rows: list[tuple[list[float], list[float], list[float]]], shuffle: random.Random
) -> None:
    places = list(range(len(rows[0][0])))
    shuffle.shuffle(places)
    moved = [tuple([one[place] for place in places] for one in row) for row in rows]
    shuffle.shuffle(moved)
    before, after = unzipped(rows), unzipped(moved)  # type: ignore[arg-type]
    assert before.ranks_changed == after.ranks_changed
    assert before.passes == after.passes
    assert before.tolerance == after.tolerance
    assert before.largest_difference == after.largest_difference


@given(pairs_of_scores, st.sampled_from([-64.0, -1.0, 0.03125, 2.0, 1024.0]))
def test_the_tolerance_scales_with_the_logits_and_the_verdict_does_not(
    rows: list[tuple[list[float], list[float], list[float]]], scale: float
) -> None:
    """Powers of two, so that rounding decides nothing; a negative one is the calibration of a cost model."""
    before = unzipped(rows)
    after = unzipped([tuple([scale * score for score in one] for one in row) for row in rows])  # type: ignore[misc]
    assert after.tolerance == pytest.approx(abs(scale) * before.tolerance, rel=1e-12)
    assert after.ranks_changed == before.ranks_changed
    assert (after.passes, after.is_constant) == (before.passes, before.is_constant)


@given(pairs_of_scores)
def test_what_the_engines_agree_on_with_the_reference_passes_unless_it_is_constant(
    rows: list[tuple[list[float], list[float], list[float]]],
) -> None:
    reference = [row[0] for row in rows]
    same = comparison(reference, reference)
    assert (same.largest_difference, same.rms_difference, same.ranks_changed) == (0, 0, 0)
    assert same.passes != same.is_constant


def test_the_spread_is_the_standard_deviation_over_all_scores() -> None:
    assert comparison([[1.0, 3.0], [5.0, 7.0]], [[1.0, 3.0], [5.0, 7.0]]).spread == pytest.approx(math.sqrt(5))


@pytest.mark.parametrize(
    ("served", "computed", "share"),
    [
        ("float32", "float32", FULL_PRECISION_SHARE),
        ("bfloat16", "float32", LOW_PRECISION_SHARE),
        ("float16", "float32", LOW_PRECISION_SHARE),
        ("float32", "bfloat16", LOW_PRECISION_SHARE),
        ("bfloat16", "bfloat16", LOW_PRECISION_SHARE),
    ],
)
def test_the_less_precise_side_decides_the_tolerance(served: str, computed: str, share: float) -> None:
    compared = comparison(REFERENCE, REFERENCE, served=served, computed=computed)
    assert compared.tolerance == pytest.approx(share * compared.spread)
    inside = with_score(REFERENCE, 0, 3, 5.0 + 0.6 * compared.tolerance)
    assert comparison(REFERENCE, inside, served=served, computed=computed).passes
    assert comparison(REFERENCE, REFERENCE, inside, served=served, computed=computed).passes
    outside = with_score(REFERENCE, 0, 3, 5.0 + 1.1 * compared.tolerance)
    assert not comparison(REFERENCE, outside, served=served, computed=computed).passes
    assert not comparison(REFERENCE, REFERENCE, outside, served=served, computed=computed).passes


def test_a_score_that_depends_on_the_prefix_cache_fails() -> None:
    moved = with_score(REFERENCE, 1, 2, 3.5)
    found = comparison(REFERENCE, REFERENCE, cached=moved)
    assert (found.cache_difference, found.batch_difference) == (1.0, 0.0)
    assert not found.passes


def test_a_small_shift_of_every_score_fails() -> None:
    """A calibration of one label moves all scores by less than the largest difference that rounding may make."""
    tolerance = comparison(REFERENCE, REFERENCE, served="bfloat16").tolerance
    shifted = comparison(REFERENCE, mapped(REFERENCE, shift=1.1 * tolerance / RMS_PART), served="bfloat16")
    assert shifted.largest_difference < tolerance / 2
    assert not shifted.passes
    assert comparison(REFERENCE, mapped(REFERENCE, shift=0.9 * tolerance / RMS_PART), served="bfloat16").passes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rank_counts_only_beyond_the_tolerance(dtype: str) -> None:
    """Two answers of nearly one score change places in bfloat16, by rounding; that once failed the check."""
    tolerance = comparison(REFERENCE, REFERENCE, served=dtype).tolerance
    for gap, changed in ((0.2 * tolerance, 0), (2.5 * tolerance, 1)):
        close = with_score(REFERENCE, 0, 1, 2.0 + gap / 2)
        reversed_ = with_score(REFERENCE, 0, 1, 2.0 - gap / 2)
        assert comparison(close, close, reversed_, served=dtype).ranks_changed == changed
        assert comparison(close, reversed_, close, served=dtype).ranks_changed == changed
        assert comparison(close, reversed_, served=dtype).ranks_changed == changed, "against the reference, too"


def test_a_changed_rank_fails_although_every_difference_is_within_the_tolerance() -> None:
    many = REFERENCE * 20
    tolerance = comparison(many, many).tolerance
    close = with_score(many, 0, 1, 2.0 - 1.2 * tolerance)
    swapped = with_score(with_score(close, 0, 1, 2.0 - 0.4 * tolerance), 0, 2, 2.0 - 0.6 * tolerance)
    compared = comparison(close, swapped)
    assert compared.largest_difference < compared.tolerance
    assert compared.rms_difference < compared.tolerance / RMS_PART
    assert compared.ranks_changed == 1
    assert not compared.passes


def test_ties_are_an_order() -> None:
    tied = with_score(REFERENCE, 0, 1, 2.0)
    tolerance = comparison(tied, tied).tolerance
    assert comparison(tied, tied).ranks_changed == 0
    assert comparison(tied, with_score(tied, 0, 1, 2.0 + tolerance / 2)).ranks_changed == 0
    assert comparison(tied, with_score(tied, 0, 1, 2.0 + tolerance * 2)).ranks_changed == 1
    assert comparison(with_score(tied, 0, 1, 2.0 - tolerance * 2), tied).ranks_changed == 1, "a gap that is lost"


@pytest.mark.parametrize("value", [0.0, 3.7, -1e9])
def test_a_model_without_spread_fails(value: float) -> None:
    flat = [[value] * 4] * 3
    compared = comparison(flat, flat)
    assert compared.tolerance == 0
    assert compared.is_constant
    assert not compared.differs
    assert not compared.passes


def test_a_spread_of_rounding_errors_is_none() -> None:
    rounded = with_score([[3.7] * 4] * 3, 1, 1, 3.7 + 4e-7)
    assert comparison(rounded, rounded).is_constant
    assert not comparison(rounded, rounded).passes


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails_wherever_it_is(value: float) -> None:
    broken = with_score(REFERENCE, 1, 2, value)
    for compared in (
        comparison(broken, REFERENCE),
        comparison(REFERENCE, broken),
        comparison(REFERENCE, REFERENCE, broken),
        comparison(broken, broken),
    ):
        assert compared.differs
        assert not compared.passes
        assert compared.ranks_changed >= 0


def test_a_failed_sanity_check_fails() -> None:
    assert not comparison(REFERENCE, REFERENCE, failure="the sign is wrong").passes
