"""Admission: random traffic, on which every bound is checked, and plain examples."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from winnow.models.errors import Overloaded
from winnow.server.pipeline.admission import Admission, Ticket

LIMIT, QUEUE, TOKENS = 16, 60, 100
PLENTY = 10**6
INDEX = st.integers(0, PLENTY)


def is_empty(admission: Admission) -> bool:
    counts = (admission.in_flight, admission.queued_requests, admission.queued_candidates, admission.queued_tokens)
    return not any(counts) and not (admission._waiting or admission._start or admission._finish)


def is_full(admission: Admission, candidates: int, tokens: int = 0) -> bool:
    with contextlib.suppress(Overloaded):
        admission.require_room(candidates, tokens)
        return False
    return True


def admitted_after(running: Ticket, waiting: Sequence[Ticket]) -> list[Ticket]:
    """Return `waiting` in the order of admission if each leaves before the next, `running` first."""
    order: list[Ticket] = []
    for last in itertools.chain([running], order):
        last.leave()
        order += [ticket for ticket in waiting if ticket.is_admitted and ticket not in order]
    return order


@dataclass(eq=False)
class Guest:
    """One request with the counts that the test keeps."""

    ticket: Ticket
    place: int  # in its flow's queue when it came, from 1
    over: asyncio.Event = field(default_factory=asyncio.Event)
    overtaken: Counter[tuple[object, int]] = field(default_factory=Counter)
    task: asyncio.Task[None] | None = None

    @property
    def flow(self) -> tuple[object, int]:
        return self.ticket.flow

    @property
    def size(self) -> int:
        return self.ticket.requested

    @property
    def least_of_flow(self) -> int:
        """The fewest candidates that a request of its flow may get."""
        return -(-self.size // 2)


class Crowd(RuleBasedStateMachine):
    """Requests come, finish and are cancelled, each a task that waits, stays and leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.admission = Admission(LIMIT, QUEUE, TOKENS)
        self.waiting: list[Guest] = []
        self.running: list[Guest] = []
        self.admitted: list[Guest] = []
        self.leads: dict[tuple[tuple[object, int], tuple[object, int]], tuple[int, int, int]] = {}

    async def stay(self, guest: Guest) -> None:
        try:
            await guest.ticket.admitted()
            self.admitted.append(guest)
            await guest.over.wait()
        finally:
            guest.ticket.leave()

    def settle(self) -> list[Guest]:
        """Let all tasks come to rest; who has been admitted, in order, each checked against the bounds."""

        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        admitted, self.admitted = self.admitted, []
        for guest in admitted:
            self.check_bounds(guest)
            self.waiting.remove(guest)
            self.running.append(guest)
        flows = {guest.flow for guest in self.waiting}
        self.leads = {pair: lead for pair, lead in self.leads.items() if flows.issuperset(pair)}
        return admitted

    def check_bounds(self, guest: Guest) -> None:
        """Against each flow that waits, over every interval in which both do; and against each guest that waits."""
        for other in {each.flow for each in self.waiting} - {guest.flow}:
            pair = (guest.flow, other) if repr(guest.flow) < repr(other) else (other, guest.flow)
            lead, least, most = self.leads.get(pair, (0, 0, 0))
            lead += guest.ticket.candidates if pair[0] == guest.flow else -guest.ticket.candidates
            least, most = min(least, lead), max(most, lead)
            self.leads[pair] = lead, least, most
            assert most - least <= guest.size + other[1]
        if not any(each.flow == guest.flow for each in self.waiting if each is not guest):
            self.leads = {pair: lead for pair, lead in self.leads.items() if guest.flow not in pair}
        for each in self.waiting:
            each.overtaken[guest.flow] += 1
            if each.flow != guest.flow:
                assert each.overtaken[guest.flow] <= each.place * each.size // guest.least_of_flow + 1

    @rule(
        name=st.sampled_from("abc"),
        size=st.sampled_from([1, 1, 2, 5, 16]) | st.integers(1, LIMIT),
        tokens=INDEX,
        halves=st.sampled_from([0, 0, 1]),
    )
    def enter(self, name: str, size: int, tokens: int, halves: int) -> None:
        """A range's least is half of what is asked, in one of three."""
        tokens %= 20
        least = -(-size // 2) if halves else size
        fits = not self.waiting and self.admission.in_flight + least <= LIMIT
        may_wait = self.admission.queued_candidates + least <= QUEUE and self.admission.queued_tokens + tokens <= TOKENS
        if not fits and not may_wait:
            assert is_full(self.admission, least, tokens)
            with pytest.raises(Overloaded):
                self.admission.enter(name, size, tokens, least)
            return
        assert not is_full(self.admission, least, tokens)
        place = 1 + sum(guest.flow == (name, size) for guest in self.waiting)
        guest = Guest(self.admission.enter(name, size, tokens, least), place)
        guest.task = self.loop.create_task(self.stay(guest))
        self.waiting.append(guest)
        assert self.settle() == [guest] * fits

    @precondition(lambda self: self.running)
    @rule(index=INDEX)
    def finish(self, index: int) -> None:
        guest = self.running.pop(index % len(self.running))
        before = self.admission.in_flight
        guest.over.set()
        admitted = self.settle()
        assert all(before + head.ticket.least > LIMIT for head in admitted[:1]), "the head waited although it fitted"

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        guest = self.waiting.pop(index % len(self.waiting))
        assert guest.task
        guest.task.cancel()
        before = self.admission.in_flight
        admitted = self.settle()
        assert not admitted or before + guest.ticket.least > LIMIT, "the head waited although it fitted"

    @precondition(lambda self: self.running)
    @rule(index=INDEX)
    def cancel_running(self, index: int) -> None:
        guest = self.running.pop(index % len(self.running))
        assert guest.task
        guest.task.cancel()
        self.settle()

    @invariant()
    def counts_are_right(self) -> None:
        assert all(guest.ticket.is_admitted for guest in self.running)
        assert not any(guest.ticket.is_admitted for guest in self.waiting)
        assert self.admission.in_flight == sum(guest.ticket.candidates for guest in self.running) <= LIMIT
        assert all(guest.ticket.least <= guest.ticket.candidates <= guest.size for guest in self.running)
        assert self.admission.queued_requests == len(self.waiting)
        assert self.admission.queued_candidates == sum(guest.ticket.least for guest in self.waiting) <= QUEUE
        assert self.admission.queued_tokens == sum(guest.ticket.tokens for guest in self.waiting) <= TOKENS
        assert self.running or not self.waiting

    def teardown(self) -> None:
        while self.running:
            self.finish(0)
        assert not self.waiting, "starved"
        assert is_empty(self.admission)
        self.loop.close()


Crowd.TestCase.settings = settings(Crowd.TestCase.settings, max_examples=100, stateful_step_count=60)
TestCrowd = Crowd.TestCase


class WavyCrowd(Crowd):
    """The same, and requests that have begun come back for further waves, each of at most their flow's K."""

    def check_bounds(self, guest: Guest) -> None:
        begun = {each.flow for each in self.waiting if each.ticket.has_begun and each is not guest}
        assert guest.ticket.has_begun or guest.flow not in begun, "a wave waited behind a request that had not begun"
        for other in {each.flow for each in self.waiting} - {guest.flow}:
            pair = (guest.flow, other) if repr(guest.flow) < repr(other) else (other, guest.flow)
            lead, least, most = self.leads.get(pair, (0, 0, 0))
            lead += guest.ticket.candidates if pair[0] == guest.flow else -guest.ticket.candidates
            least, most = min(least, lead), max(most, lead)
            self.leads[pair] = lead, least, most
            assert most - least <= guest.flow[1] + other[1]
        if not any(each.flow == guest.flow for each in self.waiting if each is not guest):
            self.leads = {pair: lead for pair, lead in self.leads.items() if guest.flow not in pair}

    @precondition(lambda self: self.running)
    @rule(index=INDEX, size=st.integers(1, LIMIT))
    def next_wave(self, index: int, size: int) -> None:
        former = self.running.pop(index % len(self.running))
        size = min(size, former.flow[1])
        wave = Guest(self.admission.enter_wave(former.ticket, size), 1)
        wave.task = self.loop.create_task(self.stay(wave))
        self.waiting.append(wave)
        former.over.set()
        self.settle()
        assert wave.ticket.candidates in (0, size), "a wave is drawn whole"

    @precondition(lambda self: self.running)
    @rule(index=INDEX, size=st.integers(1, LIMIT))
    def wave_ahead(self, index: int, size: int) -> None:
        begun = self.running[index % len(self.running)]
        is_free = not self.waiting and self.admission.in_flight + size <= LIMIT / 2
        ticket = self.admission.enter_ahead(begun.ticket, size)
        assert (ticket is not None) == is_free
        if ticket:
            assert ticket.is_admitted
            ahead = Guest(ticket, 1)
            ahead.task = self.loop.create_task(self.stay(ahead))
            self.waiting.append(ahead)
            self.settle()

    @invariant()
    def counts_are_right(self) -> None:
        assert self.admission.in_flight == sum(guest.ticket.candidates for guest in self.running) <= LIMIT
        assert self.admission.queued_requests == len(self.waiting)
        assert self.admission.queued_candidates == sum(guest.ticket.least for guest in self.waiting)
        not_begun = [guest for guest in self.waiting if not guest.ticket.has_begun]
        assert sum(guest.ticket.least for guest in not_begun) <= QUEUE, "only waves are never refused"
        assert self.running or not self.waiting


WavyCrowd.TestCase.settings = settings(WavyCrowd.TestCase.settings, max_examples=60, stateful_step_count=60)
TestWavyCrowd = WavyCrowd.TestCase


def test_a_wave_goes_ahead_within_its_flow_and_not_of_other_flows() -> None:
    admission = Admission(8, PLENTY, PLENTY)
    running = [admission.enter("a", 4, 0), admission.enter("b", 4, 0)]
    queued = [admission.enter("a", 4, 0), admission.enter("c", 4, 0)]
    wave = admission.enter_wave(running[0], 4)
    assert not wave.is_admitted
    running[0].leave()
    assert [ticket.is_admitted for ticket in (wave, *queued)] == [True, False, False], "its own flow's was the first"
    second = admission.enter_wave(wave, 4)
    wave.leave()
    assert [ticket.is_admitted for ticket in (second, *queued)] == [False, False, True], "now it is another's turn"
    for ticket in (running[1], second, *queued):
        ticket.leave()
    assert is_empty(admission)


def test_a_wave_is_not_refused_by_a_full_queue() -> None:
    admission = Admission(4, 4, 0)
    running, waiting = admission.enter("a", 4, 0), admission.enter("b", 4, 0)
    assert is_full(admission, 1)
    wave = admission.enter_wave(running, 4)
    running.leave()
    assert [wave.is_admitted, waiting.is_admitted] == [True, False], "neither flow has had more, and it came first"
    wave.leave()
    assert waiting.is_admitted
    waiting.leave()
    assert is_empty(admission)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1, 2, 8])), max_size=40))
def test_requests_are_admitted_in_the_order_of_the_papers_start_tags(requests: list[tuple[str, int]]) -> None:
    admission = Admission(8, PLENTY, PLENTY)
    running = admission.enter("first", 8, 0)
    finish: Counter[tuple[str, int]] = Counter()
    tagged = []
    for name, size in requests:
        tagged.append((finish[name, size], admission.enter(name, size, 0)))
        finish[name, size] += size
    expected = [ticket for _, ticket in sorted(tagged, key=lambda each: each[0])]
    assert admitted_after(running, expected) == expected


def test_one_candidate_waits_for_one_large_request_however_many_are_queued() -> None:
    admission = Admission(64, PLENTY, PLENTY)
    running = admission.enter("batch", 64, 0)
    large = [admission.enter("batch", 64, 0) for _ in range(100)]
    theirs, own = admission.enter("someone", 1, 0), admission.enter("batch", 1, 0)
    running.leave()
    assert [ticket.is_admitted for ticket in (large[0], theirs, own)] == [True, False, False]
    large[0].leave()
    assert [ticket.is_admitted for ticket in (large[1], theirs, own)] == [False, True, True]


def test_no_request_overtakes_the_head_while_it_waits_for_room() -> None:
    admission = Admission(4, PLENTY, PLENTY)
    small = [admission.enter("small", 1, 0) for _ in range(4)]
    large = admission.enter("large", 4, 0)
    for ticket in small:
        later = admission.enter("small", 1, 0)
        assert not large.is_admitted
        ticket.leave()
        assert not later.is_admitted
    assert large.is_admitted


def test_cancelled_requests_do_not_count_against_their_flow() -> None:
    admission = Admission(4, PLENTY, PLENTY)
    running = admission.enter("a", 4, 0)
    cancelled = [admission.enter("a", 4, 0) for _ in range(50)]
    others = [admission.enter("b", 4, 0) for _ in range(2)]
    last = admission.enter("a", 4, 0)
    for ticket in cancelled:
        ticket.leave()
    assert admitted_after(running, [*others, last]) == [others[0], last, others[1]]


def test_endless_new_flows_starve_no_other_and_are_forgotten() -> None:
    """Regression: with V as in the paper each new flow was served before any second request, and kept as long."""
    admission = Admission(4, PLENTY, PLENTY)
    names = itertools.count()
    running = admission.enter("patient", 4, 0)
    patient = [admission.enter("patient", 4, 0) for _ in range(5)]
    crowd = [admission.enter(next(names), 4, 0) for _ in range(8)]
    for _ in range(len(patient) * (1 + len(crowd))):
        running.leave()
        running = next(ticket for ticket in patient + crowd if ticket.is_admitted and not ticket._has_left)
        if running in crowd:
            crowd.remove(running)
            crowd.append(admission.enter(next(names), 4, 0))
        assert len(admission._finish) <= 2 * len(crowd)
    assert all(ticket.is_admitted for ticket in patient), "one in each round"
    for ticket in [running, *patient, *crowd]:
        ticket.leave()
    assert is_empty(admission)


def test_a_new_flow_waits_for_at_most_its_own_size() -> None:
    """A large request just served leaves a large finish tag; a new small flow held to it would wait too long."""
    admission = Admission(8, PLENTY, PLENTY)
    running, large = admission.enter("a", 8, 0), admission.enter("large", 8, 0)
    batch = [admission.enter("batch", 1, 0) for _ in range(100)]
    running.leave()
    assert large.is_admitted
    small = admission.enter("small", 1, 0)
    large.leave()
    assert small.is_admitted
    assert sum(ticket.is_admitted for ticket in batch) == 7


def test_idle_flows_are_forgotten() -> None:
    admission = Admission(4, PLENTY, PLENTY)
    for name in range(100):
        admission.enter(name, 1, 0).leave()
        assert is_empty(admission)
    running, head = admission.enter("a", 4, 0), admission.enter("a", 4, 0)
    for name in range(100):
        admission.enter(name, 1, 0).leave()
    assert len(admission._waiting) == len(admission._start) == 1
    assert not admission._finish
    head.leave()
    running.leave()
    assert is_empty(admission)


async def test_waiting_suspends_only_when_there_is_no_room() -> None:
    admission = Admission(4, 4, 0)
    first, second = admission.enter("a", 4, 0), admission.enter("a", 4, 0)
    with pytest.raises(StopIteration):
        first.admitted().send(None)
    waits = asyncio.create_task(second.admitted())
    await asyncio.sleep(0)
    assert not waits.done()
    first.leave()
    first.leave()
    await waits
    assert admission.in_flight == 4
    second.leave()
    assert is_empty(admission)


@pytest.mark.parametrize("in_the_turn_of_its_admission", [False, True])
async def test_a_cancelled_request_wakes_the_next(in_the_turn_of_its_admission: bool) -> None:
    admission = Admission(4, 8, 0)
    running = admission.enter("a", 2, 0)
    first, second = admission.enter("b", 4, 0), admission.enter("c", 2, 0)

    async def stay() -> None:
        try:
            await first.admitted()
            pytest.fail("it was cancelled")
        finally:
            first.leave()

    task = asyncio.create_task(stay())
    await asyncio.sleep(0)
    if in_the_turn_of_its_admission:
        running.leave()
        assert first.is_admitted
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert second.is_admitted
    running.leave()
    second.leave()
    assert is_empty(admission)


def test_a_queue_is_bounded_in_candidates_and_in_prompt_tokens() -> None:
    admission = Admission(8, 8, 100)
    running, waiting = admission.enter("a", 8, 1000), admission.enter("a", 4, 60)
    assert not is_full(admission, 4, 40)
    assert is_full(admission, 5, 40)
    assert is_full(admission, 4, 41)
    head = admission.enter("b", 4, 40)
    waiting.leave()
    assert not is_full(admission, 4, 60)
    head.leave()
    running.leave()
    assert not is_full(admission, 8, 1000), "the bounds are the queue's: with room nobody waits"


def test_a_full_queue_refuses_even_a_request_that_would_fit() -> None:
    admission = Admission(8, 8, 0)
    running, head = admission.enter("a", 4, 0), admission.enter("a", 8, 0)
    assert is_full(admission, 1), "it would fit, but may not overtake the head, and there is no place behind it"
    head.leave()
    assert not is_full(admission, 1)
    running.leave()


def test_without_a_queue_no_request_waits() -> None:
    admission = Admission(4, 0, 0)
    running = admission.enter("a", 3, 5)
    assert not is_full(admission, 1, 5)
    with pytest.raises(Overloaded):
        admission.enter("b", 2, 5)
    running.leave()
    assert is_empty(admission)


@pytest.mark.parametrize("candidates", [0, 5])
def test_a_request_that_could_never_be_admitted_is_an_assertion_error(candidates: int) -> None:
    with pytest.raises(AssertionError):
        Admission(4, PLENTY, PLENTY).enter("a", candidates, 0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def retry_after(admission: Admission) -> int:
    with pytest.raises(Overloaded) as full:
        admission.require_room(1, PLENTY)
    return full.value.retry_after


def test_the_estimate_is_the_queue_ahead_over_the_turnover_of_places() -> None:
    clock = Clock()
    admission = Admission(8, 100, 0, clock=clock)
    running = admission.enter("a", 8, 0)
    assert retry_after(admission) == 1, "no stay has been observed"
    for _ in range(20):
        clock.now += 4
        running.leave()
        clock.now += 3600  # an idle hour tells nothing about the rate
        running = admission.enter("a", 8, 0)
    assert retry_after(admission) == 4
    waiting = admission.enter("b", 5, 0)
    assert retry_after(admission) == 7  # 13 candidates at 2 a second
    waiting.leave()
    assert retry_after(admission) == 4, "who leaves the queue is no evidence of the rate"
    for _ in range(50):
        clock.now += 16
        running.leave()
        running = admission.enter("a", 8, 0)
    assert retry_after(admission) == 16, "what was long ago fades"


@pytest.mark.parametrize(("seconds", "estimate"), [(0.0, 1), (0.01, 1), (59.5, 60), (1e9, 60)])
def test_the_estimate_is_between_1_and_60_seconds(seconds: float, estimate: int) -> None:
    clock = Clock()
    admission = Admission(8, 0, 0, clock=clock)
    running = admission.enter("a", 8, 0)
    clock.now += seconds
    running.leave()
    admission.enter("a", 8, 0)
    assert retry_after(admission) == estimate


@settings(max_examples=300)
@given(st.integers(1, 64), st.integers(0, 64), st.integers(0, 255))
def test_a_range_is_granted_in_full_while_half_of_the_places_are_free_then_less(
    least: int, more: int, taken: int
) -> None:
    admission = Admission(256, PLENTY, PLENTY)
    others = [admission.enter("others", 1, 0) for _ in range(taken)]
    asked = least + more
    ticket = admission.enter("a", asked, 0, least)
    if taken + least > 256:
        assert not ticket.is_admitted
    else:
        assert least <= ticket.candidates <= min(asked, 256 - taken)
        assert (ticket.candidates == asked) == (ticket.reduced_by is None)
        if taken <= 128:
            assert ticket.candidates == asked
        one_more = Admission(256, PLENTY, PLENTY)
        rest = [one_more.enter("others", 1, 0) for _ in range(taken + 1)]
        later = one_more.enter("a", asked, 0, least)
        if later.is_admitted:
            assert ticket.candidates - 2 - more // 64 <= later.candidates <= ticket.candidates, "smoothly"
        for each in (*rest, later):
            each.leave()
    for each in (*others, ticket):
        each.leave()
    assert is_empty(admission)


def test_k_shrinks_before_any_request_is_refused_and_grows_back() -> None:
    admission = Admission(64, 64, PLENTY)
    crowd = []
    while not is_full(admission, 4):
        crowd.append(admission.enter("a", 16, 0, 4))
    sizes = [ticket.candidates for ticket in crowd if ticket.is_admitted]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes == [16, 16, 16, 10, 6], "the less room is left, the fewer"
    assert {ticket.reduced_by for ticket in crowd if 0 < ticket.candidates < 16} == {"load"}
    for ticket in crowd:
        ticket.leave()
    assert is_empty(admission)
    assert admission.enter("a", 16, 0, 4).candidates == 16


def test_a_request_that_would_wait_too_long_is_refused_at_once() -> None:
    clock = Clock()
    admission = Admission(8, 100, PLENTY, 10.0, clock)
    running = admission.enter("a", 8, 0)
    assert not is_full(admission, 8), "how long a stay is has not been seen yet"
    clock.now += 6
    running.leave()
    running = admission.enter("a", 8, 0)
    assert not is_full(admission, 8), "6 s"
    waiting = admission.enter("a", 8, 0)
    assert is_full(admission, 8), "12 s"
    assert not is_full(admission, 4), "9 s"
    running.leave()
    waiting.leave()
    assert not is_full(admission, 8)


def test_a_request_whose_deadline_would_pass_in_the_queue_is_refused_at_once() -> None:
    clock = Clock()
    admission = Admission(8, 100, PLENTY, clock=clock)
    admission.enter("a", 8, 0).leave()
    running = admission.enter("a", 8, 0)
    clock.now += 6
    running.leave()
    running = admission.enter("a", 8, 0)
    with pytest.raises(Overloaded):
        admission.enter("b", 8, 0, deadline=clock.now + 5)
    waiting = admission.enter("b", 8, 0, deadline=clock.now + 7)
    clock.now += 8  # it took longer than it looked
    running.leave()
    assert waiting.is_admitted
    assert (waiting.candidates, waiting.reduced_by) == (1, "deadline")
    waiting.leave()
    assert is_empty(admission)


async def test_at_its_deadline_a_waiting_head_needs_a_single_place() -> None:
    admission = Admission(8, 100, PLENTY)
    others = [admission.enter("a", 7, 0)]
    ticket = admission.enter("b", 8, 0, deadline=time.monotonic() + 0.05)
    assert not ticket.is_admitted
    await asyncio.wait_for(ticket.admitted(), 5)
    assert (ticket.candidates, ticket.reduced_by) == (1, "deadline")
    for each in (*others, ticket):
        each.leave()
    assert is_empty(admission)
