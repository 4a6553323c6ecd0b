"""The standing of one selection: the outcomes of its candidates so far, and the best of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from winnow.models.combiner import rank
from winnow.models.types import Aborted, CombinerName, Failure, ScoredCandidate

Outcome = ScoredCandidate | Failure | Aborted
"""The end of a candidate."""


@dataclass(slots=True)
class Standing:
    """The outcomes that count, each list in the order in which candidates ended."""

    combiner: CombinerName
    empty_last: bool = True
    scored: list[ScoredCandidate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    aborted: list[Aborted] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a candidate."""
        if isinstance(outcome, ScoredCandidate):
            self.scored.append(outcome)
        elif isinstance(outcome, Failure):
            self.failures.append(outcome)
        else:
            self.aborted.append(outcome)

    @property
    def ended(self) -> int:
        """The number of candidates that have ended."""
        return len(self.scored) + len(self.failures) + len(self.aborted)

    @property
    def leader(self) -> ScoredCandidate | None:
        """The best candidate so far; None before the first score."""
        if not self.scored:
            return None
        return self.scored[rank(self.scored, self.combiner, empty_last=self.empty_last)[0]]

    @property
    def answer(self) -> ScoredCandidate | None:
        """The best candidate so far, if others may be given up for its sake: not for an empty answer's."""
        leader = self.leader
        return None if leader and self.empty_last and leader.candidate.is_empty else leader

    @property
    def good(self) -> float | None:
        """R_c of the answer, if it may be good enough: with `safe_first` only a safe one may; None for none."""
        answer = self.answer
        if answer is None or (self.combiner == "safe_first" and answer.reward.is_gated):
            return None
        return answer.reward.combined
