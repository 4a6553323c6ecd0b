"""The bookkeeping of early rejection: pure, so its properties are checked on random orders of events."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from winnow.models.combiner import combine
from winnow.models.types import Candidate, ScoredCandidate
from winnow.server.pipeline.early_stopping import EarlyRejection, EarlyStopping, Rejection


def part(index: int, logit: float) -> ScoredCandidate:
    return ScoredCandidate(Candidate(index, (index,), "", "length", 1), combine(False, 3.0, logit))


def rejection(keep: float = 0.5, at: tuple[int, ...] = (4,), k: int = 8) -> Rejection:
    return Rejection(EarlyRejection(at, keep), k, "llama2")


def test_the_lower_half_goes_once_all_have_been_seen() -> None:
    state = rejection(k=4)
    assert state.score(0, 0, part(0, 1.0)) == []
    assert state.score(0, 2, part(2, 3.0)) == []
    assert state.score(0, 1, part(1, -1.0)) == []
    assert sorted(state.score(0, 3, part(3, 0.0))) == [1, 3]


def test_who_ends_before_a_checkpoint_holds_nobody_up() -> None:
    state = rejection(k=3)
    assert state.end(1, competes=True) == []
    assert state.score(0, 0, part(0, 1.0)) == []
    assert state.score(0, 2, part(2, 2.0)) == [0]


def test_who_has_ended_by_itself_is_not_given_up() -> None:
    state = rejection(k=2)
    assert state.score(0, 0, part(0, -5.0)) == []
    assert state.end(0, competes=True) == []
    assert state.score(0, 1, part(1, 1.0)) == []


def test_a_part_that_could_not_be_scored_is_not_held_against_anybody() -> None:
    state = rejection(k=3)
    state.score(0, 0, None)
    state.score(0, 1, part(1, 0.0))
    assert state.score(0, 2, part(2, 1.0)) == [1]


@given(st.integers(1, 16), st.floats(0.05, 0.95), st.integers(1, 4), st.randoms(use_true_random=False))
def test_in_any_order_of_events_nobody_is_given_up_twice_and_somebody_finishes(
    k: int, keep: float, checkpoints: int, rng: random.Random
) -> None:
    state = rejection(keep, tuple(range(1, checkpoints + 1)), k)
    running, at, finished = set(range(k)), dict.fromkeys(range(k), 0), set()
    while running:
        index = rng.choice(sorted(running))
        if at[index] < checkpoints:
            given_up = state.score(at[index], index, part(index, rng.uniform(-5, 5)))
            at[index] += 1
        else:
            given_up = state.end(index, competes=True)
            running.discard(index)
            finished.add(index)
        assert running.issuperset(given_up)
        for loser in given_up:
            running.discard(loser)
            assert state.end(loser, competes=False) == []
        assert running or finished, "somebody goes on"
    assert finished, "and comes to an end"


def test_a_dial_at_rest_stops_nobody() -> None:
    assert not EarlyStopping().is_set
    assert EarlyStopping(accept_reward=0.0).is_set
    assert EarlyStopping(deadline=1.0).is_set


def test_who_was_given_up_at_one_checkpoint_takes_no_place_at_the_next() -> None:
    """Both were scored at both checkpoints before the first was decided: the second kept the one that had gone, and gave up the other."""
    state = rejection(at=(4, 8), k=2)
    state.score(0, 0, part(0, -1.0))
    state.score(1, 0, part(0, 5.0))
    state.score(1, 1, part(1, -5.0))
    assert state.score(0, 1, part(1, 1.0)) == [0]
    assert state.end(0, competes=False) == []
    assert state.end(1, competes=True) == []


def test_who_has_failed_takes_no_place() -> None:
    state = rejection(k=2)
    state.score(0, 0, part(0, 5.0))
    state.end(0, competes=False)
    assert state.score(0, 1, part(1, -5.0)) == []
