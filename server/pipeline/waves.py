"""Waves: candidates that are drawn a few at a time, until they are good enough or more are not worth their price.

`Waves` is a caller's choice; `WaveBook` is the bookkeeping of one selection's waves. Both are pure, without clocks or
tasks: whether a selection stops is decided at a wave's end, from the rewards of its candidates alone, so that the same
seed gives the same candidates whatever else the server does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from winnow.models.types import Aborted, ScoredCandidate
from winnow.server.pipeline.standing import Outcome


class ExpectedGain(Protocol):
    """The expected growth of the best R_c by further candidates; see `winnow.models.gains.GainTable.expected`."""

    def __call__(self, best: float, seen: int, step: int, *, is_safety: bool) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Waves:
    """A caller's choice: the sizes of the first and of the later waves, and the condition that ends them.

    One of `reward`, in (0, 1], and `gain`, in (0, 1), is set. `reward`: stop once the best R_c reaches it. `gain`: stop
    when the expected gain in R_c of the next wave, by candidate, is below it.
    """

    start: int = 4
    step: int = 4
    reward: float | None = None
    gain: float | None = None

    def ends(self, candidates: int, least: int = 1) -> Iterator[int]:
        """Yield the number of candidates at each wave's end, up to K = `candidates`; the first has `least` or more."""
        end = min(candidates, max(self.start, least))
        while end < candidates:
            yield end
            end = min(candidates, end + self.step)
        yield candidates

    def stop(
        self, best: float, seen: int, step: int, *, is_safety: bool, expected: ExpectedGain | None
    ) -> Literal["reward", "gain"] | None:
        """Return the condition under which `best`, the highest R_c of `seen` candidates, is good enough; None: go on.

        `step` is the size of the next wave. A `gain` needs the `expected` one.
        """
        if self.reward is not None:
            return "reward" if best >= self.reward else None
        assert self.gain is not None
        assert expected, "no gain is known for these models"
        return "gain" if expected(best, seen, step, is_safety=is_safety) / step < self.gain else None


@dataclass(slots=True)
class WaveBook:
    """The waves of one selection: which candidates count, and the outcomes of those started ahead of the decision.

    `ends` has the number of candidates at the end of each wave. The next wave may be started ahead, before it is known
    whether it is needed. Its outcomes are held back until then: only then do its candidates count.
    """

    ends: tuple[int, ...]
    waves: int = 1
    """The number of waves that count."""
    is_ahead: bool = False
    """Whether the next wave has been started already."""
    _held: list[tuple[int, Outcome]] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """The number of candidates that count, those below this index."""
        return self.ends[self.waves - 1]

    @property
    def size(self) -> int:
        """The number of candidates of the last wave that counts."""
        return self.counted - (self.ends[self.waves - 2] if self.waves > 1 else 0)

    @property
    def next(self) -> range:
        """The candidates of the next wave; empty if all K count."""
        return range(self.counted, self.ends[self.waves] if self.waves < len(self.ends) else self.counted)

    def hold(self, index: int, outcome: Outcome) -> None:
        """Hold back the outcome of a candidate that was started ahead."""
        self._held.append((index, outcome))

    def count_next(self) -> list[tuple[int, Outcome]]:
        """Let the next wave count; return what was held back of it."""
        self.waves += 1
        self.is_ahead = False
        held, self._held = self._held, []
        return held

    def drop_next(self) -> list[Aborted]:
        """Return what was held back of a wave that is not needed: its candidates do not compete."""
        held, self._held = self._held, []
        return [unneeded(index, outcome) for index, outcome in held]


def unneeded(index: int, outcome: Outcome) -> Aborted:
    """Return the outcome of a candidate of a wave that was not needed, with the tokens that it took."""
    if isinstance(outcome, ScoredCandidate):
        return Aborted(index, "adaptive", outcome.candidate.tokens)
    return Aborted(index, "adaptive", outcome.tokens if isinstance(outcome, Aborted) else 0)
