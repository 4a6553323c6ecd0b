"""The dial between quality and speed: what may end a selection, or a candidate, before its time.

`EarlyStopping` is what a caller asks for; `Rejection` is the bookkeeping of early rejection, pure, without clocks or tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from winnow.models.combiner import rank
from winnow.models.types import CombinerName, ScoredCandidate


@dataclass(frozen=True, slots=True)
class EarlyRejection:
    """Give up the candidates that look worst when so many tokens have been sampled (Sun et al., Speculative Rejection, 2024).

    `at_tokens` are checkpoints, ascending, each at least 1. At each one the share `keep`, in (0, 1), of those that passed it goes on,
    rounded up. The score of a part says little about the whole, so the outcome is approximate.
    """

    at_tokens: tuple[int, ...]
    keep: float = 0.5


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """When less than all of K candidates will do. By default never.

    `deadline`, an instant of `time.monotonic`, ends a selection with the best of what has been scored by then; if nothing has, with the
    first that is. `accept_reward`, in [0, 1], ends it as soon as a candidate's R_c reaches it.
    """

    deadline: float | None = None
    accept_reward: float | None = None
    early_rejection: EarlyRejection | None = None

    @property
    def is_set(self) -> bool:
        """Whether a candidate may have to be stopped by itself."""
        return self != EarlyStopping()


@dataclass(slots=True)
class Rejection:
    """Which of `candidates` are given up, and when. Each method returns the indices that are to be given up now.

    A checkpoint is decided when every candidate has either been scored there or has ended before that. Those that have ended keep
    their place in the final ranking: they have been paid for.
    """

    options: EarlyRejection
    candidates: int
    combiner: CombinerName
    _at: list[dict[int, ScoredCandidate | None]] = field(init=False)
    _ended: set[int] = field(default_factory=set)
    _out: set[int] = field(default_factory=set)
    """Those that take no place at a checkpoint any more: given up, or failed."""
    _decided: int = 0

    def __post_init__(self) -> None:
        self._at = [{} for _ in self.options.at_tokens]

    def score(self, checkpoint: int, index: int, part: ScoredCandidate | None) -> list[int]:
        """Note what candidate `index` was worth at a checkpoint; None if it could not be scored, which is not held against it."""
        self._at[checkpoint][index] = part
        return self._decide()

    def end(self, index: int, *, competes: bool) -> list[int]:
        """Note that a candidate has ended: with a score, with which it `competes`, or without."""
        self._ended.add(index)
        if not competes:
            self._out.add(index)
        return self._decide()

    def _decide(self) -> list[int]:
        rejected: list[int] = []
        while self._decided < len(self._at):
            passed = self._at[self._decided]
            if len(self._ended | passed.keys()) < self.candidates:
                break
            self._decided += 1
            dropped = self._worst({index: part for index, part in passed.items() if part and index not in self._out})
            self._ended.update(dropped)
            self._out.update(dropped)
            rejected += dropped
        return rejected

    def _worst(self, parts: Mapping[int, ScoredCandidate]) -> list[int]:
        """Those of a checkpoint that are to go, less those that have ended by themselves."""
        scored = list(parts.values())
        kept = math.ceil(self.options.keep * len(scored))
        indices = (scored[position].candidate.index for position in rank(scored, self.combiner)[kept:])
        return [index for index in indices if index not in self._ended]
