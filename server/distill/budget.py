"""A budget of candidates over all prompts of a run: the size of every wave of every prompt.

Rounds follow from the rewards alone, so that a resumed run, which has them in its journal, goes on with the same ones.
No texts, no engines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from winnow.models.errors import RunError
from winnow.server.distill.expected_gains import Gains, States
from winnow.server.distill.traces import Traces

if TYPE_CHECKING:
    from winnow.models.statistics import IntArray

WAVES_OF_A_ROUND = 16
"""The least number of waves in a round: fewer would leave engines idle for the sake of a little more knowledge."""
_DIGITS = 9
"""Decimals of an expected gain that count: the last bits may differ between machines."""
_SPELLING = re.compile(r"(\d{1,12})((?:,(?:start|step)=\d{1,6})*)", re.ASCII)


class Limits(NamedTuple):
    """The number of candidates of a prompt's first wave, and the most that it may have."""

    start: int
    most: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of candidates over all prompts: `start` for each, then further waves of `step` where they gain most."""

    candidates: int
    start: int = 4
    step: int = 4

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the budget that `text` spells: `600`, or `600,start=2,step=2`.

        Raises:
            RunError: it does not spell one.
        """
        found = _SPELLING.fullmatch(text.replace(" ", ""))
        pairs = [part.split("=") for part in found[2].split(",")[1:]] if found else []
        sizes = {name: int(value) for name, value in pairs}
        if not found or 0 in (int(found[1]), *sizes.values()) or len(sizes) < len(pairs):
            raise RunError(f"--budget is a number of candidates, as 600 or 600,start=2,step=2, not {text!r}")
        return cls(int(found[1]), **sizes)

    def limits(self, candidates: int, n: int) -> Limits:
        """Return the limits of a prompt whose K is `candidates`, of which `n` are returned."""
        return Limits(min(candidates, max(self.start, n)), candidates)

    def require_possible(self, limits: Collection[Limits]) -> None:
        """Check that the prompts can take just this budget.

        Raises:
            RunError: they cannot; the message says what they need, and how many candidates they take.
        """
        least, most = sum(limit.start for limit in limits), sum(limit.most for limit in limits)
        prompts = f"{len(limits):,} prompt{'' if len(limits) == 1 else 's'}"
        if self.candidates < least:
            raise RunError(
                f"a budget of {self.candidates:,} is too small: the first wave of {prompts} takes {least:,} "
                f"candidates; raise it, or lower start, as in --budget {self.candidates},start=1"
            )
        if self.candidates > most:
            raise RunError(
                f"a budget of {self.candidates:,} cannot be used up: {prompts} take at most {most:,} candidates; "
                "lower it, or raise -k"
            )


class Allocation:
    """The rounds of a budget over the prompts of `limits`, by input line.

    Every candidate that was started counts, also one that failed: a prompt whose first wave failed altogether has used
    it up, and gets no other. A line at fault has used nothing; what it leaves goes to the others.
    """

    def __init__(self, budget: Budget, limits: Mapping[int, Limits], gains: Gains) -> None:
        lines = sorted(limits)
        self.round = 0
        self.budget = budget
        self._gains = gains
        self._lines: IntArray = np.array(lines, dtype=np.int64)
        self._sampled: IntArray = np.array([limits[line].start for line in lines], dtype=np.int64)
        self._most: IntArray = np.array([limits[line].most for line in lines], dtype=np.int64)
        self._current = np.zeros(0, dtype=np.int64)
        self._states: States | None = None

    @property
    def spent(self) -> int:
        """Candidates that have been sampled, or that the current round samples."""
        return int(self._sampled.sum())

    def pending(self, traces: Traces) -> dict[int, int]:
        """Return the next waves that `traces` do not have yet: the number of candidates at its end, by line.

        The first wave of each prompt must have been sampled. Empty once the budget is used up, or nothing can take
        any more. All rounds that `traces` have are passed over.
        """
        if self._states is None:
            self._begin(traces)
        while True:
            pending = {
                line: target
                for line, target in zip(self._lines.tolist(), self._sampled.tolist(), strict=True)
                if line in traces.prompts and traces.prompts[line].candidates < target
            }
            if pending or not self._advance(traces):
                return pending

    def _begin(self, traces: Traces) -> None:
        for place, line in enumerate(self._lines.tolist()):
            if line not in traces.prompts:
                self._most[place] = self._sampled[place] = self._sampled[place] if line in traces.failed else 0
        self._states = States(len(self._lines))
        self._update(np.flatnonzero(self._most > 0), traces)
        self._gains.learn(self._states)

    def _update(self, places: IntArray, traces: Traces) -> None:
        """Take in the rewards of the candidates that the round has just sampled, or that a former process had."""
        assert self._states
        for place in places.tolist():
            if trace := traces.prompts.get(int(self._lines[place])):
                self._states.set(place, trace.logits[: self._sampled[place]], is_safety=trace.is_safety)

    def _advance(self, traces: Traces) -> bool:
        """Begin the next round; False if there is none."""
        left = self.budget.candidates - self.spent
        open_places = np.flatnonzero(self._sampled < self._most)
        if left <= 0 or not len(open_places):
            return False
        self._update(self._current, traces)
        assert self._states
        counts = np.minimum(self.budget.step, self._most[open_places] - self._sampled[open_places])
        worth = self._gains.expected(self._states, open_places, counts) / counts
        chosen = np.lexsort((open_places, -np.round(worth, _DIGITS)))[: self._size(left)]
        places, counts = open_places[chosen], counts[chosen]
        before = np.cumsum(counts) - counts
        counts = np.clip(left - before, 0, counts)
        self._current = places[counts > 0]
        self._sampled[self._current] += counts[counts > 0]
        self.round += 1
        return True

    def _size(self, left: int) -> int:
        """Return the number of waves in a round: half of those that are left, so that later ones know more."""
        return max(WAVES_OF_A_ROUND, -(-left // self.budget.step) // 2)
