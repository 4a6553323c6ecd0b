"""The places of a request's waves: what is held, what goes back and when, and who waits for whom."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from tests.server.pipeline.test_admission import is_empty
from winnow.server.pipeline.admission import Admission, Ticket
from winnow.server.pipeline.places import Places

PLENTY = 10**6


def admission(places: int = 16) -> Admission:
    return Admission(places, PLENTY, PLENTY)


def contended(at: Admission, least: int = 16, deadline: float = math.inf) -> tuple[Places, Ticket]:
    """Return the places of a request in flight, and another flow's ticket whose turn is before its next wave."""
    first = at.enter("a", 4, 0)
    mine, other = at.enter("a", 4, 0, deadline=deadline), at.enter("b", 4, 0)
    first.leave()
    assert mine.is_admitted
    return Places(mine, least), other


async def test_a_wave_ahead_holds_its_places_beside_those_of_the_one_under_way() -> None:
    at = admission()
    places = Places(at.enter("a", 4, 0), least=16)
    assert places.take_ahead(3)
    assert places.held == at.in_flight == 7
    assert not places.take_ahead(3), "half of the places stay free"
    places.release_wave()
    assert places.held == at.in_flight == 3
    places.close()
    assert is_empty(at)


async def test_no_wave_goes_ahead_while_a_request_waits() -> None:
    at = admission(8)
    places, other = Places(at.enter("a", 2, 0), least=8), at.enter("b", 7, 0)
    assert not places.take_ahead(1)
    other.leave()
    assert places.take_ahead(1)
    places.close()
    assert is_empty(at)


async def test_the_next_wave_takes_the_places_of_the_former_before_those_who_have_not_begun() -> None:
    at = admission(4)
    places, waiting = Places(at.enter("a", 4, 0), least=16), at.enter("a", 4, 0)
    assert await places.next_wave(4, drawn=4) is None
    assert (places.held, at.in_flight, waiting.is_admitted) == (4, 4, False)
    places.close()
    assert waiting.is_admitted
    waiting.leave()
    assert is_empty(at)


async def test_a_wave_waits_behind_another_flow() -> None:
    at = admission(4)
    places, other = contended(at)
    waiting = asyncio.create_task(places.next_wave(2, drawn=4))
    await asyncio.sleep(0)
    assert other.is_admitted
    assert not waiting.done()
    assert places.held == 0, "what waits holds nothing"
    other.leave()
    assert await waiting is None
    assert places.held == 2
    places.close()
    assert is_empty(at)


@pytest.mark.parametrize(("least", "refused"), [(4, "load"), (5, None)])
async def test_a_range_ends_with_its_least_instead_of_waiting(least: int, refused: str | None) -> None:
    at = admission(4)
    places, other = contended(at, least)
    waiting = asyncio.create_task(places.next_wave(4, drawn=4))
    await asyncio.sleep(0)
    assert waiting.done() == bool(refused)
    other.leave()
    assert await waiting == refused
    places.close()
    assert is_empty(at)


async def test_no_wave_starts_after_the_deadline_unless_there_is_no_answer_yet() -> None:
    for drawn, expected in ((4, "deadline"), (0, None)):
        at = admission(4)
        places, other = contended(at, deadline=time.monotonic() + 0.01)
        waiting = asyncio.create_task(places.next_wave(4, drawn))
        await asyncio.wait([waiting], timeout=0.1)
        assert waiting.done() == bool(drawn)
        other.leave()
        assert await waiting == expected
        places.close()
        assert is_empty(at)


async def test_cancelling_a_wave_that_waits_gives_everything_back() -> None:
    at = admission(4)
    places, other = contended(at)
    waiting = asyncio.create_task(places.next_wave(4, drawn=4))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    places.close()
    other.leave()
    assert is_empty(at)
