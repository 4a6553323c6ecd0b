"""Admission: bounds that hold, and a queue that is fair."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.server.admission import Admission, Overloaded, Ticket

LIMIT = 16
sizes = st.integers(1, LIMIT)


def everything_is_free(admission: Admission) -> bool:
    counts = (admission.in_flight, admission.queued_candidates, admission.queued_tokens, admission.queued_requests)
    return counts == (0, 0, 0, 0) and not admission._finish_tags


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave"]), st.sampled_from("abc"), sizes, st.integers(0, 50))))
def test_bounds_hold_and_nothing_is_lost(steps: list[tuple[str, str, int, int]]) -> None:
    admission = Admission(LIMIT, 40, 200)
    tickets: list[Ticket] = []
    for step, flow, number, tokens in steps:
        if step == "leave" and tickets:
            ticket = tickets.pop(number % len(tickets))
            ticket.leave()
            ticket.leave()
        elif step == "enter":
            before = (admission.in_flight, admission.queued_candidates, admission.queued_tokens)
            fits = before[0] + number <= LIMIT and before[1] == 0
            if fits or (before[1] + number <= 40 and before[2] + tokens <= 200):
                tickets.append(admission.enter(flow, number, tokens))
            else:
                with pytest.raises(Overloaded):
                    admission.enter(flow, number, tokens)
                assert before == (admission.in_flight, admission.queued_candidates, admission.queued_tokens)
        running = [ticket for ticket in tickets if ticket.is_admitted]
        waiting = [ticket for ticket in tickets if not ticket.is_admitted]
        assert sum(ticket.candidates for ticket in running) == admission.in_flight <= LIMIT
        assert sum(ticket.candidates for ticket in waiting) == admission.queued_candidates <= 40
        assert sum(ticket.tokens for ticket in waiting) == admission.queued_tokens <= 200
        if waiting:
            assert admission.in_flight + min(waiting).candidates > LIMIT, "the head waits although it fits"
        assert len(admission._finish_tags) <= 2 * len(tickets) + 1
    while tickets:
        admitted = next(ticket for ticket in tickets if ticket.is_admitted)  # somebody always runs: nobody starves
        tickets.remove(admitted)
        admitted.leave()
    assert everything_is_free(admission)


@given(st.lists(sizes, min_size=2, max_size=4), st.integers(5, 30), st.randoms(use_true_random=False))
def test_flows_that_wait_get_equal_shares(flows: list[int], requests: int, random: object) -> None:
    """The stated bound: while two flows both wait, the candidates admitted from them differ by at most K₁ + K₂."""
    admission = Admission(LIMIT, 10**6, 10**6)
    running = [admission.enter("first", LIMIT, 0)]
    waiting = {flow: [admission.enter(flow, k, 0) for _ in range(requests)] for flow, k in enumerate(flows)}
    admitted = dict.fromkeys(waiting, 0)
    while all(waiting.values()):
        random.shuffle(running)  # type: ignore[attr-defined]
        running.pop().leave()
        for flow, tickets in waiting.items():
            while tickets and tickets[0].is_admitted:
                running.append(tickets.pop(0))
                admitted[flow] += flows[flow]
        if all(waiting.values()):
            for one, k_one in enumerate(flows):
                for other, k_other in enumerate(flows):
                    assert abs(admitted[one] - admitted[other]) <= k_one + k_other


def test_one_candidate_waits_behind_at_most_one_large_request() -> None:
    admission = Admission(64, 10**6, 10**6)
    running = admission.enter("large", 64, 0)
    queued = [admission.enter("large", 64, 0) for _ in range(10)]
    small = admission.enter("small", 1, 0)
    same_client = admission.enter("large", 1, 0)
    running.leave()
    assert queued[0].is_admitted
    queued[0].leave()
    assert small.is_admitted
    assert same_client.is_admitted, "a client's small requests do not wait behind its own large ones"


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    admission = Admission(64, 10**6, 10**6)
    running = [admission.enter("small", 1, 0) for _ in range(64)]
    large = admission.enter("large", 64, 0)
    overtakers = 0
    while not large.is_admitted:
        running.append(admission.enter("small", 1, 0))
        running.pop(0).leave()
        overtakers += running[-1].is_admitted
    assert overtakers <= 1 + 64


async def test_waiting_is_for_ones_turn_and_a_cancelled_wait_makes_room() -> None:
    admission = Admission(4, 8, 100)
    first = admission.enter("a", 4, 1)
    await first.admitted()
    second, third = admission.enter("a", 4, 1), admission.enter("b", 4, 1)
    waits = [asyncio.create_task(ticket.admitted()) for ticket in (second, third)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        admission.require_room(1)
    waits[0].cancel()
    second.leave()
    admission.require_room(1)
    assert not waits[1].done()
    first.leave()
    await waits[1]
    third.leave()
    assert everything_is_free(admission)


def test_the_wait_is_told_from_the_observed_pace() -> None:
    now = 0.0
    admission = Admission(8, 0, 0, clock=lambda: now)
    for _ in range(50):
        ticket = admission.enter("a", 8, 0)
        now += 4.0
        ticket.leave()
    admission.enter("a", 8, 0)
    with pytest.raises(Overloaded) as full:
        admission.enter("a", 1, 0)
    assert full.value.retry_after == 4
