"""R̃_c = whiten(logit(R_c)), Llama 2, section 3.2.3: zero mean and unit variance over every candidate of a run.

It takes two passes: one over all candidates for the moments, one that applies them.
"""

from __future__ import annotations

import math


class Moments:
    """Mean and spread of numbers that come one by one, by Welford's updates: no sum of squares that cancels.

    `lowest` and `highest` are 0.0 while nothing was added, as are the mean and the deviation.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.lowest = 0.0
        self.highest = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take a number in; finite."""
        self.lowest = min(self.lowest, value) if self.count else value
        self.highest = max(self.highest, value) if self.count else value
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self._squares += step * (value - self.mean)

    @property
    def deviation(self) -> float:
        """The standard deviation over all numbers, ≥ 0."""
        return math.sqrt(max(self._squares, 0.0) / self.count) if self.count else 0.0

    def whiten(self, value: float) -> float:
        """How many deviations `value` is above the mean; 0.0 where all numbers were equal."""
        deviation = self.deviation
        return (value - self.mean) / deviation if deviation > 0 else 0.0
