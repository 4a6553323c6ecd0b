"""Early stopping: the conditions that end a selection, or a candidate, before all K candidates have finished.

`EarlyStopping` is a caller's choice; `RejectionRounds` is the bookkeeping of early rejection, pure, without
clocks or tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from winnow.models.combiner import rank
from winnow.models.types import CombinerName, ScoredCandidate


@dataclass(frozen=True, slots=True)
class EarlyRejection:
    """Abort the lowest-scoring candidates at checkpoints (Sun et al., Speculative Rejection, 2024).

    `at_tokens` are the checkpoints in sampled tokens, ascending, each at least 1. At each one the share `keep`,
    in (0, 1), of the candidates that passed it goes on, rounded up. A partial answer's score predicts the whole
    answer's only loosely, so the outcome is approximate.
    """

    at_tokens: tuple[int, ...]
    keep: float = 0.5


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """The conditions under which fewer than K candidates will do; by default there are none.

    `deadline`, an instant of `time.monotonic`, ends a selection with the best candidate scored by then, or with
    the first one scored after it. `accept_reward`, in [0, 1], ends it as soon as a candidate's R_c reaches it.
    """

    deadline: float | None = None
    accept_reward: float | None = None
    early_rejection: EarlyRejection | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether a candidate may have to be stopped while its siblings go on."""
        return self != NEVER


NEVER = EarlyStopping()
"""Wait for all K candidates."""


@dataclass(slots=True)
class RejectionRounds:
    """The rounds of early rejection, one a checkpoint. Each method returns the indices of the candidates to abort now.

    A round is decided when every candidate has either been scored at its checkpoint or has finished before it. Finished
    candidates keep their place in the final ranking: their tokens have been spent.
    """

    options: EarlyRejection
    candidates: int
    combiner: CombinerName
    _scores: list[dict[int, ScoredCandidate | None]] = field(init=False)
    _settled: set[int] = field(default_factory=set)
    """Candidates that have finished, failed or been aborted."""
    _out: set[int] = field(default_factory=set)
    """Candidates that do not compete at a checkpoint any more: aborted or failed ones."""
    _decided: int = 0

    def __post_init__(self) -> None:
        self._scores = [{} for _ in self.options.at_tokens]

    def score(self, checkpoint: int, index: int, part: ScoredCandidate | None) -> list[int]:
        """Note a partial score at a checkpoint; None if it could not be computed, which does not count against it."""
        self._scores[checkpoint][index] = part
        return self._decide()

    def end(self, index: int, *, competes: bool) -> list[int]:
        """Note that a candidate has finished; it `competes` if it has a score."""
        self._settled.add(index)
        if not competes:
            self._out.add(index)
        return self._decide()

    def _decide(self) -> list[int]:
        rejected: list[int] = []
        while self._decided < len(self._scores):
            passed = self._scores[self._decided]
            if len(self._settled | passed.keys()) < self.candidates:
                break
            self._decided += 1
            dropped = self._worst({index: part for index, part in passed.items() if part and index not in self._out})
            self._settled.update(dropped)
            self._out.update(dropped)
            rejected += dropped
        return rejected

    def _worst(self, parts: Mapping[int, ScoredCandidate]) -> list[int]:
        """Return the lowest-scoring candidates of a checkpoint, without those that have finished."""
        scored = list(parts.values())
        kept = math.ceil(self.options.keep * len(scored))
        ranking = rank(scored, self.combiner, empty_last=False)  # a part without text is not scored to be last
        indices = (scored[position].candidate.index for position in ranking[kept:])
        return [index for index in indices if index not in self._settled]
