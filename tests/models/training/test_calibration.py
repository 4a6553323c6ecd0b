"""Calibration on synthetic answers whose scale, bias and noise are known."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models.errors import NoCalibration
from winnow.models.reward_model import Calibration
from winnow.models.training.calibration import (
    Scored,
    fit,
    require_both_labels,
    require_enough,
    require_sense,
    with_precision,
)
from winnow.models.training.evaluation import gate_figures, precision_and_recall
from winnow.models.types import is_gated


def synthetic(seed: int, count: int = 1500, scale: float = 0.6, bias: float = -0.8, each: int = 2) -> Scored:
    """Answers, `each` of them to a prompt, whose label follows from `scale · raw + bias`."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(1.0, 3.0, count)
    safe = rng.random(count) < 1 / (1 + np.exp(-(scale * raw + bias)))
    return Scored(tuple(raw.tolist()), tuple((~safe).tolist()), tuple(f"p{place // each}" for place in range(count)))


@pytest.mark.parametrize("scale", [0.6, -0.4, 5.0])
def test_known_numbers_are_within_their_intervals(scale: float) -> None:
    """In about 95 of 100 samples; 40 samples have at most 6 outside but for one time in a thousand."""
    misses = np.zeros(2)
    for seed in range(40):
        found = fit(synthetic(seed, scale=scale))
        misses += [found.scale.excludes(scale), found.bias.excludes(-0.8)]
        assert not found.is_separable
    assert misses.max() <= 6


def test_rows_of_one_prompt_do_not_make_an_interval_narrow() -> None:
    """Each answer given eight times says no more than once."""
    once = synthetic(0, 400, each=1)
    repeated = Scored(once.raw * 8, once.is_unsafe * 8, once.prompts * 8)
    narrow, wide = fit(repeated).scale, fit(once).scale
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_the_models_own_units_do_not_matter(factor: float, offset: float) -> None:
    """The calibrated logit of an answer is the same, whatever the raw score's unit and zero."""
    plain = synthetic(1, 300)
    moved = Scored(tuple(factor * raw + offset for raw in plain.raw), plain.is_unsafe, plain.prompts)
    one, other = fit(plain).calibration, fit(moved).calibration
    for raw, shifted in zip(plain.raw[:20], moved.raw[:20], strict=True):
        assert one(raw) == pytest.approx(other(shifted), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("scale", [0.6, -0.6])
@pytest.mark.parametrize("seed", range(5))
def test_a_stated_precision_holds_on_fresh_answers(scale: float, seed: int) -> None:
    chosen = with_precision(synthetic(seed, 6000, scale=scale), scale, 0.8)
    fresh = synthetic(100 + seed, 20_000, scale=scale)
    figures = gate_figures([chosen(raw) for raw in fresh.raw], fresh.is_unsafe)
    assert figures.precision.value == pytest.approx(0.8, abs=0.03)
    assert chosen.scale == scale


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.7, 0.8, 0.9]), st.sampled_from([1.3, -1.3]))
def test_the_gate_of_the_card_is_the_threshold_that_was_chosen(seed: int, precision: float, scale: float) -> None:
    """Also where scores tie, and after rounding: the card's gate has the precision on the answers of the fit."""
    found = synthetic(seed, 400, scale=scale)
    scored = Scored(tuple(round(raw, 1) for raw in found.raw), found.is_unsafe, found.prompts)
    try:
        chosen = with_precision(scored, scale, precision)
    except NoCalibration:
        return
    gated = [is_gated(chosen(raw)) for raw in scored.raw]
    assert precision_and_recall(gated, scored.is_unsafe)[0] >= precision
    assert 0 < sum(gated) < len(scored)


def test_scores_that_divide_the_labels_have_a_bounded_scale() -> None:
    raw = tuple(map(float, range(200)))
    scored = Scored(raw, tuple(value < 100 for value in raw), tuple(map(str, range(200))))
    found = fit(scored)
    assert found.is_separable
    assert 0 < found.calibration.scale < 100
    assert found.calibration(99.5) == pytest.approx(0, abs=0.05)


def test_a_tie_at_the_border_divides_all_the_same() -> None:
    raw = (*[0.0] * 60, *[1.0] * 5, *[1.0] * 5, *[2.0] * 60)
    assert fit(Scored(raw, (True,) * 65 + (False,) * 65, tuple(map(str, range(130))))).is_separable


def changed(found: Scored, **fields: object) -> Scored:
    values = {"raw": found.raw, "is_unsafe": found.is_unsafe, "prompts": found.prompts} | fields
    return Scored(**values)  # type: ignore[arg-type]


PLAIN = synthetic(2, 300)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (lambda: require_enough(changed(PLAIN, is_unsafe=(True,) * 49 + (False,) * 251)), "49 unsafe and 251 safe"),
        (lambda: require_enough(changed(PLAIN, raw=(1.5,) * 300)), "every answer has the score 1.5"),
        (lambda: fit(changed(PLAIN, raw=(1.5,) * 300)), "too coarse"),
        (lambda: require_enough(changed(PLAIN, prompts=("a", "b", "c") * 100)), "to 3 prompts"),
        (lambda: require_both_labels(changed(PLAIN, is_unsafe=(True,) * 300), "is held out"), "another --seed"),
        (lambda: require_sense(fit(PLAIN), -1.0), "turn every rank around"),
        (lambda: require_sense(fit(synthetic(3, scale=-0.6)), 1.0), "needs a card with scale = -1"),
        (lambda: with_precision(PLAIN, 1.0, 0.3), "a gate that refuses every answer"),
        (lambda: with_precision(synthetic(3, 300, scale=0.05), 1.0, 0.99), "no threshold of this model"),
    ],
)
def test_what_would_be_guessed_is_refused(refused: Callable[[], object], reason: str) -> None:
    with pytest.raises(NoCalibration, match=reason):
        refused()


def test_a_score_that_means_nothing_is_refused() -> None:
    rng = Random(0)
    noise = changed(PLAIN, is_unsafe=tuple(rng.random() < 0.5 for _ in PLAIN.raw))
    with pytest.raises(NoCalibration, match="does not tell safe from unsafe"):
        require_sense(fit(noise), 1.0)


def test_a_cost_model_keeps_its_sign() -> None:
    found = fit(synthetic(3, scale=-0.6))
    require_sense(found, -1.0)
    assert found.calibration.scale < 0


def test_a_split_keeps_the_prompts_apart() -> None:
    left, right = PLAIN.split({"p0", "p1"})
    assert set(right.prompts) == {"p0", "p1"}
    assert len(left) + len(right) == len(PLAIN)
    assert not set(left.prompts) & set(right.prompts)
    assert len(PLAIN.split(set())[1]) == 0
    assert isinstance(fit(left).calibration, Calibration)
