"""The bookkeeping of early rejection: pure, so its properties are checked on random orders of events."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from winnow.models.combiner import combine
from winnow.models.types import Candidate, ScoredCandidate
from winnow.server.pipeline.early_stopping import NEVER, EarlyRejection, EarlyStopping, RejectionRounds


def part(index: int, logit: float) -> ScoredCandidate:
    return ScoredCandidate(Candidate(index, "", "length", 1), combine(False, 3.0, logit))


def rejection(keep: float = 0.5, at: tuple[int, ...] = (4,), k: int = 8) -> RejectionRounds:
    return RejectionRounds(EarlyRejection(at, keep), k, "llama2")


def test_the_lower_half_is_rejected_once_all_have_been_scored() -> None:
    state = rejection(k=4)
    assert state.score(0, 0, part(0, 1.0)) == []
    assert state.score(0, 2, part(2, 3.0)) == []
    assert state.score(0, 1, part(1, -1.0)) == []
    assert sorted(state.score(0, 3, part(3, 0.0))) == [1, 3]


def test_a_candidate_that_finishes_before_a_checkpoint_does_not_delay_it() -> None:
    state = rejection(k=3)
    assert state.end(1, competes=True) == []
    assert state.score(0, 0, part(0, 1.0)) == []
    assert state.score(0, 2, part(2, 2.0)) == [0]


def test_a_finished_candidate_is_not_aborted() -> None:
    state = rejection(k=2)
    assert state.score(0, 0, part(0, -5.0)) == []
    assert state.end(0, competes=True) == []
    assert state.score(0, 1, part(1, 1.0)) == []


def test_a_partial_answer_without_a_score_is_not_rejected() -> None:
    state = rejection(k=3)
    state.score(0, 0, None)
    state.score(0, 1, part(1, 0.0))
    assert state.score(0, 2, part(2, 1.0)) == [1]


@given(st.integers(1, 16), st.floats(0.05, 0.95), st.integers(1, 4), st.randoms(use_true_random=False))
def test_in_any_order_of_events_no_candidate_is_aborted_twice_and_one_finishes(
    k: int, keep: float, checkpoints: int, rng: random.Random
) -> None:
    state = rejection(keep, tuple(range(1, checkpoints + 1)), k)
    running, at, finished = set(range(k)), dict.fromkeys(range(k), 0), set()
    while running:
        index = rng.choice(sorted(running))
        if at[index] < checkpoints:
            rejected = state.score(at[index], index, part(index, rng.uniform(-5, 5)))
            at[index] += 1
        else:
            rejected = state.end(index, competes=True)
            running.discard(index)
            finished.add(index)
        assert running.issuperset(rejected)
        for loser in rejected:
            running.discard(loser)
            assert state.end(loser, competes=False) == []
        assert running or finished, "one goes on"
    assert finished, "and finishes"


def test_early_stopping_is_off_by_default() -> None:
    assert not EarlyStopping().is_enabled
    assert EarlyStopping() == NEVER
    assert EarlyStopping(accept_reward=0.0).is_enabled
    assert EarlyStopping(deadline=1.0).is_enabled


def test_a_candidate_rejected_at_one_checkpoint_takes_no_place_at_the_next() -> None:
    """Both are scored at both checkpoints before the first is decided: the second once kept the rejected one."""
    state = rejection(at=(4, 8), k=2)
    state.score(0, 0, part(0, -1.0))
    state.score(1, 0, part(0, 5.0))
    state.score(1, 1, part(1, -5.0))
    assert state.score(0, 1, part(1, 1.0)) == [0]
    assert state.end(0, competes=False) == []
    assert state.end(1, competes=True) == []


def test_a_failed_candidate_takes_no_place() -> None:
    state = rejection(k=2)
    state.score(0, 0, part(0, 5.0))
    state.end(0, competes=False)
    assert state.score(0, 1, part(1, -5.0)) == []
