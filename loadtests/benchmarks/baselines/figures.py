"""The arithmetic of the benchmark: runs, ratios round by round, and the goals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from winnow.models.statistics import Interval, interval_of_repeats, median, percentile

Compared = Literal["ratio", "added"]


@dataclass(frozen=True, slots=True)
class Scene:
    """A closed loop: each of `clients` asks for K `candidates` as soon as its last answer has come.

    A round has `requests` requests, or `slow_requests` for systems that would take too long.
    """

    name: str
    clients: int
    candidates: int
    requests: int
    slow_requests: int

    @property
    def title(self) -> str:
        """The scene in words, for headings."""
        return f"{self.clients} client{'s' if self.clients > 1 else ''}, K = {self.candidates}"


@dataclass(frozen=True, slots=True)
class Run:
    """One system in one scene and round.

    `latencies` are of whole answers, in seconds; `seconds` is the duration of the run. `tokens` were sampled in
    all, 0 if the system does not report it. `answers` holds the text returned to each request by the request's
    number, for comparing winners.
    """

    scene: str
    system: str
    round: int
    seconds: float
    latencies: tuple[float, ...]
    tokens: int
    failed: int
    answers: tuple[tuple[int, str], ...] = ()

    @property
    def p50(self) -> float:
        """Median latency in seconds; NaN if nothing was answered."""
        return median(self.latencies)

    @property
    def requests_per_second(self) -> float:
        """Answers a second; NaN if nothing was answered."""
        return len(self.latencies) / self.seconds if self.latencies else math.nan


Measure = Callable[[Run], float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Every run of a benchmark. Intervals are the medians and ranges of the rounds; None where nothing was measured."""

    runs: tuple[Run, ...]

    def of(self, scene: str, system: str) -> list[Run]:
        """Return a system's runs in one scene, by round."""
        found = [run for run in self.runs if (run.scene, run.system) == (scene, system)]
        return sorted(found, key=lambda run: run.round)

    def interval(self, scene: str, system: str, measure: Measure) -> Interval | None:
        """Return a measure over the rounds."""
        return interval_of_repeats(map(measure, self.of(scene, system)))

    def latency(self, scene: str, system: str, percent: float) -> float:
        """Return a percentile over the requests of all rounds, in seconds."""
        return percentile(sorted(value for run in self.of(scene, system) for value in run.latencies), percent)

    def compared(
        self, scene: str, system: str, base: str, measure: Measure, how: Compared = "ratio"
    ) -> Interval | None:
        """Return a system against `base`, round by round: the ratio of a measure, or the difference."""
        bases = {run.round: measure(run) for run in self.of(scene, base)}
        pairs = [(measure(run), bases[run.round]) for run in self.of(scene, system) if run.round in bases]
        return interval_of_repeats(mine / theirs if how == "ratio" else mine - theirs for mine, theirs in pairs)

    def same_answers(self, one: str, other: str) -> tuple[int, int]:
        """Return the number of requests that both answered, and of those with the same text."""
        theirs = {
            (run.scene, run.round, number): text
            for run in self.runs
            if run.system == other
            for number, text in run.answers
        }
        pairs = [
            (text, theirs[key])
            for run in self.runs
            if run.system == one
            for number, text in run.answers
            if (key := (run.scene, run.round, number)) in theirs
        ]
        return len(pairs), sum(mine == their for mine, their in pairs)


def p50_ms(run: Run) -> float:
    """Return the median latency in milliseconds."""
    return run.p50 * 1000


def throughput(run: Run) -> float:
    """Return the answers a second."""
    return run.requests_per_second


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on `system` against `base` in a scene; judged by the median over rounds."""

    text: str
    scene: str
    system: str
    base: str
    measure: Measure
    bound: float
    is_upper: bool
    how: Compared = "ratio"

    def figure(self, figures: Figures) -> Interval | None:
        """Return the measured figure; None where a system is missing."""
        return figures.compared(self.scene, self.system, self.base, self.measure, self.how)

    def is_met(self, figures: Figures) -> bool | None:
        """Whether it is met; None where nothing was measured."""
        figure = self.figure(figures)
        if figure is None:
            return None
        return figure.value <= self.bound if self.is_upper else figure.value >= self.bound


def _against(baseline: str) -> tuple[Goal, Goal]:
    return (
        Goal(f"{baseline}: its p50 against Winnow's", "one", baseline, "winnow", p50_ms, 3, False),
        Goal(f"{baseline}: Winnow's requests/s against its", "crowd", "winnow", baseline, throughput, 3, False),
    )


GOALS: tuple[Goal, ...] = (
    Goal("p50 against plain vLLM", "one", "winnow", "vllm", p50_ms, 1.25, True),
    Goal("p50 against vLLM, then both models", "one", "winnow", "vllm+classify", p50_ms, 0.6, True),
    Goal("requests/s against plain vLLM", "crowd", "winnow", "vllm", throughput, 0.7, False),
    Goal("requests/s against vLLM, then both models", "crowd", "winnow", "vllm+classify", throughput, 1.5, False),
    Goal("p50 against the same, untuned", "one", "winnow", "untuned", p50_ms, 0.6, True),
    Goal("requests/s against the same, untuned", "crowd", "winnow", "untuned", throughput, 1.5, False),
    Goal("p50 added to plain vLLM at K = 1, ms", "single", "winnow", "vllm", p50_ms, 10, True, "added"),
    *_against("one-by-one"),
    *_against("its_hub"),
    *_against("optillm"),
    *_against("transformers"),
)
"""The goals in the scenes `one`, `crowd` and `single`."""
