"""m(r): from ratings and stated margins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.errors import BadLine
from winnow.server.distill.export.choosing import RATINGS
from winnow.server.rm.margins import Margins, margin_of

NAMES = {
    3: ("significantly better", "significantly_better", "Significantly Better", 3, "3", 3.0),
    2: ("better", "Better", 2, "2"),
    1: ("slightly better", "slightly_better", "slightly-better", 1, "1"),
    0: (
        "negligibly better",
        "negligibly_better",
        "negligibly better or unsure",
        "Negligibly better / unsure",
        "unsure",
        0,
    ),
}


@pytest.mark.parametrize(("step", "rating"), [(step, name) for step, names in NAMES.items() for name in names])
def test_a_rating_has_the_papers_margins(step: int, rating: Any) -> None:
    assert margin_of({"rating": rating}, "small") == step / 3
    assert margin_of({"rating": rating}, "large") == step
    assert margin_of({"rating": rating}, "none") is None


def test_the_ratings_of_winnows_own_export_are_the_same_scale() -> None:
    for one in RATINGS:
        assert margin_of({"rating": one.name}, "small") == pytest.approx(one.small)
        assert margin_of({"rating": one.name}, "large") == one.large


@pytest.mark.parametrize("rating", ["best", "worse", "much better", "", 4, -1, 2.5, True, [3], "better than nothing"])
def test_another_rating_is_refused_unless_margins_are_off(rating: Any) -> None:
    with pytest.raises(BadLine, match="--margins none"):
        margin_of({"rating": rating}, "small")
    assert margin_of({"rating": rating}, "none") is None


@given(st.floats(0, 10), st.sampled_from(("small", "large")))
def test_stated_margins(margin: float, size: Margins) -> None:
    """Winnow's own have a size, and are turned into the one that is wanted; TRL's is what TRL would subtract."""
    factor = {"small": 1, "large": 3}[size]
    assert margin_of({"margin_small": margin, "margin": 99.0}, size) == pytest.approx(margin * factor)
    assert margin_of({"margin_large": 3 * margin}, size) == pytest.approx(margin * factor)
    assert margin_of({"margin": margin}, size) == margin
    assert margin_of({"rating": "unsure", "margin_small": margin, "margin": margin}, size) == 0


@pytest.mark.parametrize("margin", [-0.1, 1e308, float("nan"), float("inf"), True, "wide"])
def test_a_margin_that_is_none_is_refused(margin: Any) -> None:
    for key in ("margin", "margin_small", "margin_large"):
        with pytest.raises(BadLine, match=f"{key} must be a number from 0"):
            margin_of({key: margin}, "large")


def test_a_row_without_either_has_no_margin() -> None:
    """Scores of two answers are on their author's scale: no margin."""
    assert margin_of({"score_chosen": 9.0, "score_rejected": 1.0}, "small") is None
