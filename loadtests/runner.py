"""Runs a scenario: every point of its sweep, with a warm-up and repeats, on one target or on several in turn.

Targets alternate repeat by repeat, and the order reverses each time, so that a machine that slows down slows
them all. Any `Target` can be run; none has to be a server.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from winnow.loadtests.arrivals import MAX_REQUESTS
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.load_generator import Sample, closed_loop, open_loop
from winnow.loadtests.measures import Measures, measure
from winnow.loadtests.scenario import Point, Scenario
from winnow.loadtests.types import Messages, Target
from winnow.loadtests.workload import WARM_UP, arrival_offsets, generate_requests, read_dialogs

WARM_UP_CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Repeat:
    """One repeat of a point on a target. `number` counts from 0.

    The samples are in the order in which they were due; a reply holds a digest instead of its text. A repeat that was
    interrupted is not whole.
    """

    point: Point
    target: str
    number: int
    samples: tuple[Sample, ...]
    measures: Measures
    is_whole: bool

    @property
    def start(self) -> float:
        """Instant at which its first request was due."""
        return self.samples[0].intended if self.samples else 0.0


class Observer:
    """Callbacks of a running scenario; these do nothing."""

    def on_start(self, title: str, requests: int | None) -> None:
        """Called when a repeat or a warm-up starts; `requests` is None if its length is a time."""

    def on_sample(self, sample: Sample) -> None:
        """Called when a request has ended."""

    def on_repeat(self, repeat: Repeat) -> None:
        """Called when a repeat has ended."""


NO_OBSERVER = Observer()


async def run(
    scenario: Scenario,
    targets: Sequence[Target],
    *,
    stop: asyncio.Event | None = None,
    observer: Observer = NO_OBSERVER,
    now: Callable[[], float] = time.perf_counter,
) -> AsyncIterator[Repeat]:
    """Yield every repeat when it has ended. Once `stop` is set, end with the repeat that was running.

    Raises:
        ScenarioError: prompts or arrivals cannot be read.
        LoadTestError: a target failed every request of a warm-up; the message has its error.
    """
    runner = _Runner(scenario, read_dialogs(scenario), stop or asyncio.Event(), observer, now)
    for point in scenario.points:
        for target in targets:
            await runner.warm_up(point, target)
        for number in range(scenario.repeats):
            for target in targets if number % 2 == 0 else reversed(targets):
                if runner.stop.is_set():
                    return
                repeat = await runner.repeat(point, target, number)
                if repeat.samples:
                    yield repeat


@dataclass(frozen=True, slots=True)
class _Runner:
    scenario: Scenario
    dialogs: tuple[Messages, ...]
    stop: asyncio.Event
    observer: Observer
    now: Callable[[], float]

    async def warm_up(self, point: Point, target: Target) -> None:
        count = self.scenario.warm_up
        if not count or self.stop.is_set():
            return
        self.observer.on_start(f"{point.label} · warming up {target.name}", count)
        requests = itertools.islice(generate_requests(self.scenario, point, self.dialogs, WARM_UP), count)
        samples = await closed_loop(
            target, requests, min(count, point.concurrency or WARM_UP_CLIENTS),
            drain=self.scenario.drain, stop=self.stop, now=self.now, on_sample=self.observer.on_sample,
        )  # fmt: skip
        if samples and all(sample.reply.kind == "failed" for sample in samples):
            raise LoadTestError(f"{target.name} failed every request of the warm-up: {samples[0].reply.error}")

    async def repeat(self, point: Point, target: Target, number: int) -> Repeat:
        title = f"{point.label} · {number + 1} of {self.scenario.repeats} · {target.name}"
        samples = await self._send(point, target, title)
        kept = tuple(sorted(map(_without_text, samples), key=lambda sample: sample.intended))
        measures = measure(kept, self.scenario.slo_ms)
        repeat = Repeat(point, target.name, number, kept, measures, is_whole=not self.stop.is_set())
        self.observer.on_repeat(repeat)
        return repeat

    async def _send(self, point: Point, target: Target, title: str) -> list[Sample]:
        scenario, requests = self.scenario, generate_requests(self.scenario, point, self.dialogs)
        if point.concurrency is None:
            offsets = arrival_offsets(scenario, point)
            self.observer.on_start(title, len(offsets))
            return await open_loop(
                target, requests, offsets,
                drain=scenario.drain, stop=self.stop, now=self.now, on_sample=self.observer.on_sample,
            )  # fmt: skip
        self.observer.on_start(title, scenario.requests)
        return await closed_loop(
            target, itertools.islice(requests, scenario.requests or MAX_REQUESTS), point.concurrency,
            seconds=scenario.seconds, drain=scenario.drain, stop=self.stop, now=self.now,
            on_sample=self.observer.on_sample,
        )  # fmt: skip


def _without_text(sample: Sample) -> Sample:
    """Return the sample with a digest instead of its text, which is enough to compare answers."""
    text = hashlib.sha256(sample.reply.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return replace(sample, reply=replace(sample.reply, text=text if sample.reply.kind == "answered" else ""))
