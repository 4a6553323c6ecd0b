from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import candidate
from winnow.models.combiner import combine, rank
from winnow.models.errors import CandidateFailed
from winnow.models.types import SAFETY_THRESHOLD, Branch, CombinerName, ScoredCandidate, sigmoid

logits = st.floats(-30, 30)
combiners = st.sampled_from(["llama2", "safe_first"])


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def scored(*rewards: tuple[float, float], is_safety: bool = False) -> list[ScoredCandidate]:
    """Candidates with the given (R_s, R_h) logits."""
    return [ScoredCandidate(candidate(index), combine(is_safety, *pair)) for index, pair in enumerate(rewards)]


@given(st.booleans(), logits, logits)
def test_the_formula(is_safety: bool, safety: float, helpfulness: float) -> None:
    reward = combine(is_safety, safety, helpfulness)
    expected = reward.safety if is_safety or reward.safety < 0.15 else reward.helpfulness
    assert reward.combined == expected


def test_the_gate_is_strict() -> None:
    at = logit(SAFETY_THRESHOLD)
    assert sigmoid(at) == SAFETY_THRESHOLD
    assert combine(False, at, 0.0).branch is Branch.HELPFUL
    assert combine(False, logit(SAFETY_THRESHOLD - 1e-9), 0.0).branch is Branch.UNSAFE
    assert combine(False, logit(SAFETY_THRESHOLD + 1e-9), 0.0).branch is Branch.HELPFUL
    assert combine(True, at, None).branch is Branch.SAFETY_PROMPT


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_no_score(bad: float) -> None:
    for safety, helpfulness in ((bad, 0.0), (0.0, bad), (bad, None)):
        with pytest.raises(CandidateFailed):
            combine(safety is bad and helpfulness is None, safety, helpfulness)


def test_a_missing_helpfulness_score_is_never_zero() -> None:
    with pytest.raises(CandidateFailed):
        combine(False, 0.0, None)


@given(st.lists(st.tuples(logits, logits), min_size=1, max_size=20), combiners, st.randoms())
def test_ranking_does_not_depend_on_order(
    rewards: list[tuple[float, float]], combiner: CombinerName, rng: object
) -> None:
    items = scored(*rewards)
    shuffled = list(items)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    one = [items[position].candidate.index for position in rank(items, combiner)]
    other = [shuffled[position].candidate.index for position in rank(shuffled, combiner)]
    assert one == other


@given(st.lists(st.tuples(logits, logits), min_size=1, max_size=20), st.booleans())
def test_the_winner_is_the_argmax_and_ties_go_to_the_lowest_index(
    rewards: list[tuple[float, float]], is_safety: bool
) -> None:
    items = scored(*rewards, is_safety=is_safety)
    best = max(item.reward.combined_logit for item in items)
    first = next(index for index, item in enumerate(items) if item.reward.combined_logit == best)
    assert rank(items, "llama2")[0] == first


def test_ties_beyond_the_sigmoids_precision_are_ranked_by_logit() -> None:
    items = scored((5.0, 40.0), (5.0, 41.0))
    assert items[0].reward.combined == items[1].reward.combined == 1.0
    assert rank(items, "llama2") == (1, 0)


def test_the_papers_formula_can_pick_a_gated_candidate_and_safe_first_cannot() -> None:
    """A (R_s .14) scores .14; B (R_s .60, R_h .10) scores .10: the literal argmax returns the unsafe A."""
    items = scored((logit(0.14), logit(0.9)), (logit(0.6), logit(0.1)))
    assert rank(items, "llama2") == (0, 1)
    assert rank(items, "safe_first") == (1, 0)


@given(st.lists(st.tuples(logits, logits), min_size=1, max_size=20))
def test_safe_first_ranks_every_gated_candidate_below_every_other(rewards: list[tuple[float, float]]) -> None:
    items = scored(*rewards)
    gated = [items[position].reward.branch is Branch.UNSAFE for position in rank(items, "safe_first")]
    assert gated == sorted(gated)


texts = st.lists(st.sampled_from(["", " ", "\n\t", "\u2028", "x", " y "]), min_size=1, max_size=12)


@given(texts, combiners, st.booleans(), st.data())
def test_an_empty_answer_ranks_below_every_other_which_rank_as_if_it_were_not_there(
    answers: list[str], combiner: CombinerName, is_safety: bool, data: st.DataObject
) -> None:
    pairs = data.draw(st.lists(st.tuples(logits, logits), min_size=len(answers), max_size=len(answers)))
    items = [
        replace(item, candidate=replace(item.candidate, text=text))
        for item, text in zip(scored(*pairs, is_safety=is_safety), answers, strict=True)
    ]
    ranked = [items[position] for position in rank(items, combiner)]
    empty = [not item.candidate.text.strip() for item in ranked]
    assert empty == sorted(empty) == [item.candidate.is_empty for item in ranked]
    for kind in (False, True):
        alike = [item for item in items if item.candidate.is_empty is kind]
        assert [item for item in ranked if item.candidate.is_empty is kind] == [
            alike[position] for position in rank(alike, combiner, empty_last=False)
        ]


def test_the_rule_for_empty_answers_can_be_switched_off() -> None:
    items = [replace(item, candidate=replace(item.candidate, text="")) for item in scored((3.0, 5.0))]
    items += [replace(item, candidate=replace(item.candidate, index=1)) for item in scored((3.0, -5.0))]
    assert rank(items, "llama2") == (1, 0)
    assert rank(items, "llama2", empty_last=False) == (0, 1)


@given(st.floats(allow_nan=False))
def test_sigmoid_stays_in_range(value: float) -> None:
    assert 0 <= sigmoid(value) <= 1
