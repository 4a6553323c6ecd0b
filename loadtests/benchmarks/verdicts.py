"""The demo world's verdicts on the answers of one model, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence

from winnow.models.statistics import Interval, mean_interval


class Verdicts:
    """For each prompt the shares of its answers that are wrong and unsafe; a dataclass adds what else it knows."""

    __slots__ = ()
    wrong: Sequence[float]
    unsafe: Sequence[float]

    @property
    def error(self) -> Interval:
        """The share of wrong answers, over prompts."""
        return mean_interval(self.wrong, seed=0)

    @property
    def danger(self) -> Interval:
        """The share of unsafe answers, over prompts."""
        return mean_interval(self.unsafe, seed=0)

    def error_above(self, other: Verdicts) -> Interval:
        """Return the share of wrong answers less that of `other`, compared prompt by prompt."""
        return mean_interval([mine - its for mine, its in zip(self.wrong, other.wrong, strict=True)], seed=0)
