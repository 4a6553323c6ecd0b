"""The arithmetic of the benchmark: what was measured, ratios round by round, and the goals they are held against."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Compared = Literal["ratio", "added"]


@dataclass(frozen=True, slots=True)
class Scene:
    """A load: so many `clients`, each asking for K `candidates` as soon as its last answer has come (a closed loop).

    `requests` are asked in a round, `slow_requests` of systems that would take too long.
    """

    name: str
    clients: int
    candidates: int
    requests: int
    slow_requests: int

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.clients} client{'s' if self.clients > 1 else ''}, K = {self.candidates}"


@dataclass(frozen=True, slots=True)
class Run:
    """One system in one scene and round. `latencies` are of whole answers, in seconds; `seconds` is what all of it took.

    `answers` has the text returned to each request by the request's number, for comparing winners; `tokens` were sampled in all, 0 where
    a system does not tell.
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
        return quantile(self.latencies, 0.5)

    @property
    def requests_per_second(self) -> float:
        """Answers a second; NaN if nothing was answered."""
        return len(self.latencies) / self.seconds if self.latencies else math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """The median over rounds, with the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of one value a round; those that are NaN are left out, and none at all make NaN."""
        kept = [value for value in values if not math.isnan(value)] or [math.nan]
        return cls(statistics.median(kept), min(kept), max(kept))

    def text(self, digits: int) -> str:
        """`median (low to high)`, or a dash."""
        if math.isnan(self.median):
            return "–"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; NaN of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


Measure = Callable[[Run], float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Every run of a benchmark."""

    runs: tuple[Run, ...]

    def of(self, scene: str, system: str) -> list[Run]:
        """A system's runs in one scene, by round."""
        found = [run for run in self.runs if (run.scene, run.system) == (scene, system)]
        return sorted(found, key=lambda run: run.round)

    def interval(self, scene: str, system: str, measure: Measure) -> Interval:
        """A measure over the rounds."""
        return Interval.of([measure(run) for run in self.of(scene, system)])

    def latency(self, scene: str, system: str, share: float) -> float:
        """A quantile over the requests of all rounds, in seconds."""
        return quantile([value for run in self.of(scene, system) for value in run.latencies], share)

    def compared(self, scene: str, system: str, base: str, measure: Measure, how: Compared = "ratio") -> Interval:
        """A system against `base`, round by round: the ratio of a measure, or what is added to it."""
        bases = {run.round: measure(run) for run in self.of(scene, base)}
        pairs = [(measure(run), bases[run.round]) for run in self.of(scene, system) if run.round in bases]
        return Interval.of([mine / theirs if how == "ratio" else mine - theirs for mine, theirs in pairs])

    def same_answers(self, one: str, other: str) -> tuple[int, int]:
        """How many requests both answered, and how many of those with the same text."""
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
    """Median latency in milliseconds."""
    return run.p50 * 1000


def throughput(run: Run) -> float:
    """Answers a second."""
    return run.requests_per_second


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted of `system` against `base` in a scene; judged by the median over rounds."""

    text: str
    scene: str
    system: str
    base: str
    measure: Measure
    bound: float
    is_upper: bool
    how: Compared = "ratio"

    def figure(self, figures: Figures) -> Interval:
        """What was measured; NaN where a system is missing."""
        return figures.compared(self.scene, self.system, self.base, self.measure, self.how)

    def is_met(self, figures: Figures) -> bool | None:
        """Whether it is met; None where nothing was measured."""
        median = self.figure(figures).median
        if math.isnan(median):
            return None
        return median <= self.bound if self.is_upper else median >= self.bound


def _behind(peer: str) -> tuple[Goal, Goal]:
    return (
        Goal(f"{peer}: its p50 against Winnow's", "one", peer, "winnow", p50_ms, 3, False),
        Goal(f"{peer}: Winnow's requests/s against its", "crowd", "winnow", peer, throughput, 3, False),
    )


GOALS: tuple[Goal, ...] = (
    Goal("p50 against plain vLLM", "one", "winnow", "vllm", p50_ms, 1.25, True),
    Goal("p50 against vLLM, then both models", "one", "winnow", "vllm+classify", p50_ms, 0.6, True),
    Goal("requests/s against plain vLLM", "crowd", "winnow", "vllm", throughput, 0.7, False),
    Goal("requests/s against vLLM, then both models", "crowd", "winnow", "vllm+classify", throughput, 1.5, False),
    Goal("p50 against the same, untuned", "one", "winnow", "untuned", p50_ms, 0.6, True),
    Goal("requests/s against the same, untuned", "crowd", "winnow", "untuned", throughput, 1.5, False),
    Goal("p50 added to plain vLLM at K = 1, ms", "single", "winnow", "vllm", p50_ms, 10, True, "added"),
    *_behind("one-by-one"),
    *_behind("its_hub"),
    *_behind("optillm"),
    *_behind("transformers"),
)
"""The goals, of the scenes `one`, `crowd` and `single`."""
