"""The progress of a training, as people and the report see it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from winnow.server.rm.curve import Journal, Point
from winnow.server.rm.meter import Meter, clock

if TYPE_CHECKING:
    from winnow.models.training.reward_trainer import Progress


class Watch:
    """Shows the progress of a training, and journals its curve; called after each step."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._meter = Meter()
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Journal a step, and show it if it is time to."""
        accuracy = None if math.isnan(progress.accuracy) else progress.accuracy
        self._journal.add(Point(progress.step, progress.loss, accuracy, progress.learning_rate))
        self._last = progress
        self._meter.show(lambda: in_words(progress))

    def end(self) -> None:
        """Show the last state, once."""
        if self._last:
            self._meter.end(in_words(self._last))
        self._last = None


def in_words(progress: Progress) -> str:
    """Return the state of a training as a line for people."""
    accuracy = "" if math.isnan(progress.accuracy) else f", accuracy {100 * progress.accuracy:.1f} %"
    return (
        f"step {progress.step:,} of {progress.steps:,}, loss {progress.loss:.4f}{accuracy}, "
        f"{progress.pairs_per_second:,.1f} pairs a second, {clock(progress.seconds_left)} left"
    )
