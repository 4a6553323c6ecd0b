"""The expected gain of one more wave for a prompt, by a table of other runs or by a run's own first waves."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from winnow.models.types import sigmoid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from winnow.models.statistics import FloatArray, IntArray
    from winnow.server.pipeline.waves import ExpectedGain

NODES = 64
"""Points at which an expectation is integrated."""
PRIOR = 1
"""Candidates that the spread of all prompts counts for beside a prompt's own."""
_BLOCK = 4096


class States:
    """The knowledge of each of `prompts` prompts: statistics of its rewards so far.

    `seen` counts candidates, `count` those that could win, and `singles` those of them whose reward no other has: equal
    answers have equal ones. `mean` and `squares` are of logit(R_c) over the latter: the
    mean and the sum of squared deviations. `best` is the highest R_c, 0 without any.
    """

    def __init__(self, prompts: int) -> None:
        self.seen: IntArray = np.zeros(prompts, dtype=np.int64)
        self.count: IntArray = np.zeros(prompts, dtype=np.int64)
        self.singles: IntArray = np.zeros(prompts, dtype=np.int64)
        self.mean: FloatArray = np.zeros(prompts)
        self.squares: FloatArray = np.zeros(prompts)
        self.best: FloatArray = np.zeros(prompts)
        self.is_safety = np.zeros(prompts, dtype=bool)

    def set(self, place: int, logits: Sequence[float], *, is_safety: bool) -> None:
        """Set what is known of the prompt at `place`; `logits` hold NaN for a candidate that could not win."""
        able = [value for value in logits if not math.isnan(value)]
        mean = math.fsum(able) / len(able) if able else 0.0
        self.seen[place], self.count[place], self.is_safety[place] = len(logits), len(able), is_safety
        self.singles[place] = sum(times == 1 for times in Counter(round(value, 9) for value in able).values())
        self.mean[place] = mean
        self.squares[place] = math.fsum((value - mean) ** 2 for value in able)
        self.best[place] = sigmoid(max(able)) if able else 0.0


class Gains(Protocol):
    """The expected growth of the best R_c of prompts by further candidates."""

    def learn(self, states: States) -> None:
        """Take in the first waves of all prompts; called once, before `expected`."""
        ...

    def expected(self, states: States, places: IntArray, steps: IntArray) -> FloatArray:
        """Return the gain of `steps` more candidates for each of the prompts at `places`, ≥ 0."""
        ...


@dataclass(frozen=True, slots=True)
class TableGains:
    """The gains that a table of other runs expects; see `winnow.models.gains`."""

    table: ExpectedGain

    def learn(self, states: States) -> None:
        """Learn nothing: the table is fixed."""

    def expected(self, states: States, places: IntArray, steps: IntArray) -> FloatArray:
        """Look each prompt up; see `Gains`."""
        rows = zip(
            states.best[places].tolist(), states.seen[places].tolist(), steps.tolist(),
            states.is_safety[places].tolist(), strict=True,
        )  # fmt: skip
        return np.array([self.table(best, seen, step, is_safety=is_safety) for best, seen, step, is_safety in rows])


@dataclass(frozen=True, slots=True)
class _Kind:
    """logit(R_c) over the prompts of one kind: the mean, its variance between prompts, and that within a prompt."""

    mean: float = 0.0
    between: float = 1.0
    within: float = 1.0

    @classmethod
    def of(cls, count: IntArray, mean: FloatArray, squares: FloatArray) -> _Kind | None:
        """Return the moments of prompts with at least two candidates that could win; None with fewer than two such."""
        several = count > 1
        if several.sum() < 2:
            return None
        within = max(1e-6, float(squares[several].sum() / (count[several] - 1).sum()))
        spread = float(mean[several].var(ddof=1)) - within * float((1 / count[several]).mean())
        return cls(float(mean[several].mean()), max(1e-6, spread), within)


class OwnGains:
    """The gains that the first waves of the run itself lead one to expect.

    logit(R_c) of a prompt's candidates is taken to scatter, as a logistic distribution, around a mean of its own; those
    means scatter around one of all prompts of the kind (safety prompts are of another). The moments are those of all
    prompts' first waves. A prompt's own mean and variance are drawn towards them (empirical Bayes), the less the more
    candidates it has. As many further candidates are expected to be new, and able to win, as the share of those seen
    whose reward no other has (Good and Turing's estimate).
    """

    def __init__(self) -> None:
        self._kinds: dict[bool, _Kind] = {}

    def learn(self, states: States) -> None:
        """Learn the moments; see `Gains`."""

        def kind(chosen: slice | np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> _Kind | None:
            return _Kind.of(states.count[chosen], states.mean[chosen], states.squares[chosen])

        every = kind(slice(None)) or _Kind()
        self._kinds = {flag: kind(states.is_safety == flag) or every for flag in (False, True)}

    def expected(self, states: States, places: IntArray, steps: IntArray) -> FloatArray:
        """Return what `steps` more draws from each prompt's distribution gain; see `Gains`."""
        gains = np.zeros(len(places))
        for flag, kind in self._kinds.items():
            chosen = np.flatnonzero(states.is_safety[places] == flag)
            for first in range(0, len(chosen), _BLOCK):
                block = chosen[first : first + _BLOCK]
                gains[block] = _growth(kind, states, places[block], steps[block])
        return gains


def _growth(kind: _Kind, states: States, places: IntArray, steps: IntArray) -> FloatArray:
    """Return E[max(best, best of `steps` draws)] - best, the integral of P(best of the draws > x) from best to 1."""
    count, best = states.count[places], states.best[places]
    own = count / kind.within
    weight = own + 1 / kind.between
    mean = (own * states.mean[places] + kind.mean / kind.between) / weight
    within = (PRIOR * kind.within + states.squares[places]) / (PRIOR + np.maximum(count - 1, 0))
    scale = np.sqrt(within + 1 / weight) * (math.sqrt(3) / math.pi)
    points = (np.arange(NODES) + 0.5) / NODES
    at = best[:, None] + (1 - best)[:, None] * points
    at = np.clip(at, 1e-12, 1 - 1e-12)
    level = (np.log(at) - np.log1p(-at) - mean[:, None]) / scale[:, None]
    new = steps * (states.singles[places] + 0.5) / (states.seen[places] + 1)
    below = -new[:, None] * np.logaddexp(0, -level)  # log of F(x) to the power of the draws that are new
    return np.asarray((1 - best) * -np.expm1(below).mean(axis=1))
