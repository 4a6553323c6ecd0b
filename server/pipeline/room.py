"""Room for the waves of one selection: the protocol by which it asks for places, and the case of a run that has all."""

from __future__ import annotations

from typing import Literal, Protocol


class Room(Protocol):
    """The places of one selection; its first wave has been given them."""

    def take_ahead(self, candidates: int) -> bool:
        """Take places for a wave before the one under way has ended, if they are free; return whether they were."""
        ...

    def release_wave(self) -> None:
        """Give back the places of the earlier of two waves, which has ended."""
        ...

    async def next_wave(self, candidates: int, drawn: int) -> Literal["load", "deadline"] | None:
        """Exchange the places of a wave that has ended for those of the next; return why there are none.

        `drawn` candidates have been drawn; 0 if none of them can be returned, so that the next wave is needed.
        """
        ...


class Unbounded:
    """Room for every wave in its turn, and for none ahead: for runs whose own queue keeps the engines busy."""

    def take_ahead(self, candidates: int) -> bool:
        """Return False: what another prompt could use is not spent on a wave that may not be needed."""
        return False

    def release_wave(self) -> None:
        """Do nothing: no places are counted."""

    async def next_wave(self, candidates: int, drawn: int) -> None:
        """Return at once: there is room."""


UNBOUNDED = Unbounded()
