"""The places of one request's waves in `Admission`: each wave takes its own and gives them back once it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Literal

from winnow.server.pipeline.admission import Ticket


class Places:
    """The places of a request that has been admitted with its first wave; the room of its selection.

    `least` is the fewest candidates that it accepts under load: having as many, it waits for no further wave.
    """

    def __init__(self, first: Ticket, least: int) -> None:
        self._tickets = [first]
        self._admission = first.admission
        self._deadline = first.deadline
        self._least = least

    @property
    def held(self) -> int:
        """The number of places that are held."""
        return sum(ticket.candidates for ticket in self._tickets)

    def take_ahead(self, candidates: int) -> bool:
        """Take places for a wave before the one under way has ended, if they are free; return whether they were."""
        ticket = self._admission.enter_ahead(self._tickets[0], candidates)
        if ticket:
            self._tickets.append(ticket)
        return ticket is not None

    def release_wave(self) -> None:
        """Give back the places of the earlier of two waves, which has ended."""
        self._tickets.pop(0).leave()

    async def next_wave(self, candidates: int, drawn: int) -> Literal["load", "deadline"] | None:
        """Exchange the places of a wave that has ended for those of the next; return why there are none.

        `drawn` candidates have been drawn; 0 if none of them can be returned: then it waits for as long as it takes.
        """
        former = self._tickets[0]
        ticket = self._admission.enter_wave(former, candidates)  # before the others can have what is given back
        self._tickets = [ticket]
        former.leave()
        if not ticket.is_admitted and drawn >= self._least:
            ticket.leave()
            return "load"
        limit = self._deadline if drawn else math.inf
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if limit == math.inf else limit - self._admission.now):
                await ticket.admitted()
        if not ticket.is_admitted:
            ticket.leave()
            return "deadline"
        return None

    def close(self) -> None:
        """Give back all places."""
        for ticket in self._tickets:
            ticket.leave()
