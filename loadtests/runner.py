"""Runs a scenario: every point of its sweep, warmed up and repeated, on one system or on several by turns.

Systems are interleaved repeat by repeat, in alternating order, so that a machine that slows down slows them all. Needs no server:
whatever is a `System` can be run.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from winnow.loadtests.arrivals import MOST_REQUESTS
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.load_generator import Sample, closed_loop, open_loop
from winnow.loadtests.measures import Measures, measure
from winnow.loadtests.scenario import Point, Scenario
from winnow.loadtests.types import System
from winnow.loadtests.workload import WARM_UP, Messages, asks, dialogs, offsets

WARM_UP_CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Repeat:
    """One repeat of a point on a system. `number` counts from 0; `start` is when its first request was due.

    The samples are in the order in which they were due; in place of its text a reply has the text's digest. A repeat that was
    interrupted is not whole.
    """

    point: Point
    system: str
    number: int
    samples: tuple[Sample, ...]
    measures: Measures
    is_whole: bool

    @property
    def start(self) -> float:
        """When its first request was due."""
        return self.samples[0].intended if self.samples else 0.0


class Watch:
    """Looks on while a scenario runs; this one does not care."""

    def begins(self, title: str, requests: int | None) -> None:
        """A repeat, or a warm-up, of so many requests begins; None where time ends it."""

    def seen(self, sample: Sample) -> None:
        """A request has ended."""

    def ends(self, repeat: Repeat) -> None:
        """A repeat has ended."""


NOBODY = Watch()


async def run(
    scenario: Scenario,
    systems: Sequence[System],
    *,
    stop: asyncio.Event | None = None,
    watch: Watch = NOBODY,
    now: Callable[[], float] = time.perf_counter,
) -> list[Repeat]:
    """Every repeat, in the order in which they were run. Once `stop` is set, no more is asked, and what there is comes back.

    Raises:
        ScenarioError: prompts or arrivals cannot be read.
        LoadTestError: a system failed every request of a warm-up; the message has its error.
    """
    runner = _Runner(scenario, dialogs(scenario), stop or asyncio.Event(), watch, now)
    found: list[Repeat] = []
    for point in scenario.points:
        for system in systems:
            await runner.warm_up(point, system)
        for number in range(scenario.repeats):
            for system in systems if number % 2 == 0 else reversed(systems):
                if runner.stop.is_set():
                    return found
                repeat = await runner.repeat(point, system, number)
                if repeat.samples:
                    found.append(repeat)
    return found


@dataclass(frozen=True, slots=True)
class _Runner:
    scenario: Scenario
    dialogs: tuple[Messages, ...]
    stop: asyncio.Event
    watch: Watch
    now: Callable[[], float]

    async def warm_up(self, point: Point, system: System) -> None:
        count = self.scenario.warm_up
        if not count or self.stop.is_set():
            return
        self.watch.begins(f"{point.label} · warming up {system.name}", count)
        requests = itertools.islice(asks(self.scenario, point, self.dialogs, WARM_UP), count)
        clients = min(count, point.concurrency or WARM_UP_CLIENTS)
        samples = await closed_loop(
            system, requests, clients, drain=self.scenario.drain, stop=self.stop, now=self.now, seen=self.watch.seen
        )
        if samples and all(sample.reply.kind == "failed" for sample in samples):
            raise LoadTestError(f"{system.name} failed every request of the warm-up: {samples[0].reply.error}")

    async def repeat(self, point: Point, system: System, number: int) -> Repeat:
        title = f"{point.label} · {number + 1} of {self.scenario.repeats} · {system.name}"
        samples = await self._offer(point, system, title)
        kept = tuple(sorted(map(_without_text, samples), key=lambda sample: sample.intended))
        measures = measure(kept, self.scenario.slo_ms)
        repeat = Repeat(point, system.name, number, kept, measures, is_whole=not self.stop.is_set())
        self.watch.ends(repeat)
        return repeat

    async def _offer(self, point: Point, system: System, title: str) -> list[Sample]:
        scenario, requests = self.scenario, asks(self.scenario, point, self.dialogs)
        if point.concurrency is None:
            due = offsets(scenario, point)
            self.watch.begins(title, len(due))
            return await open_loop(
                system, requests, due, drain=scenario.drain, stop=self.stop, now=self.now, seen=self.watch.seen
            )
        self.watch.begins(title, scenario.requests)
        return await closed_loop(
            system, itertools.islice(requests, scenario.requests or MOST_REQUESTS), point.concurrency,
            seconds=scenario.seconds, drain=scenario.drain, stop=self.stop, now=self.now, seen=self.watch.seen,
        )  # fmt: skip


def _without_text(sample: Sample) -> Sample:
    """All that is kept of a text is whether it equals another."""
    text = hashlib.sha256(sample.reply.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return replace(sample, reply=replace(sample.reply, text=text if sample.reply.kind == "answered" else ""))
