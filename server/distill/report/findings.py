"""What a report says, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from winnow.models.statistics import Interval
from winnow.server.distill.report.answers import Kind
from winnow.server.distill.report.counts import Tally
from winnow.server.distill.report.examples import Example

FEW_PROMPTS = 20
"""With fewer prompts than these, bootstrap intervals are too narrow to conclude anything from."""
STRONG_RHO = 0.3
LONGER = 0.2


@dataclass(frozen=True, slots=True)
class Point:
    """What `size` candidates are worth: R_c of the best of them, their median and their mean, over the same prompts."""

    size: int
    best: Interval
    median: Interval | None
    mean: Interval | None


@dataclass(frozen=True, slots=True)
class Doubling:
    """What going from `size` to twice as many candidates adds to R_c of the best, over prompts that have twice as many."""

    size: int
    gain: Interval


@dataclass(frozen=True, slots=True)
class Length:
    """How length and reward go together within prompts.

    `rho` is Spearman's correlation of tokens and R_c; `longer` how much longer than its prompt's mean answer the winner is, 0.1
    meaning 10 %; `fifths` R_c above the prompt's mean from the shortest fifth of its answers to the longest, empty where prompts
    have fewer than five answers.
    """

    rho: Interval | None
    winner: Interval
    mean: Interval
    longer: Interval
    fifths: tuple[Interval, ...]

    @property
    def follows_length(self) -> bool:
        """Whether rewards go with length: |rho| > 0.3, its interval without 0, and prompts enough to say so."""
        rho = self.rho
        return rho is not None and rho.prompts >= FEW_PROMPTS and rho.excludes(0) and abs(rho.mean) > STRONG_RHO

    @property
    def winners_are_longer(self) -> bool:
        """Whether winners are longer by more than 20 %, the interval above 0, and prompts enough to say so."""
        return self.longer.prompts >= FEW_PROMPTS and self.longer.low > 0 and self.longer.mean > LONGER


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is drawn and written. `length` and the headline's intervals are None where no prompt has answers.

    `kinds` holds the curve of the best of N for each of the commonest kinds of arm, and is empty where there is only one kind.
    `are_paired` says that these curves are about the same prompts, those that have all these kinds.
    `kept` prompts gave the intervals; fewer than there are where `is_partial`.
    """

    tally: Tally
    winner: Interval | None
    mean: Interval | None
    gain: Interval | None
    curve: tuple[Point, ...]
    kinds: dict[Kind, tuple[Point, ...]]
    are_paired: bool
    doublings: tuple[Doubling, ...]
    length: Length | None
    examples: tuple[Example, ...]
    kept: int
    is_partial: bool

    @property
    def candidates(self) -> int:
        """K, as most prompts asked for it; 0 where no prompt has answers."""
        return self.tally.most_asked()

    def enough(self, min_gain: float) -> int | None:
        """The N from which on every doubling that was measured gains less than `min_gain` of R_c; None if there is none."""
        found = None
        for doubling in reversed(self.doublings):
            if doubling.gain.mean >= min_gain:
                break
            found = doubling.size
        return found
