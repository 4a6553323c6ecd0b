"""Sends a server the same prompts, with the same seeds, in every setting and under every load: `measured`.

A run is a closed loop. Its first and last requests would meet a server that fills or empties, so other requests
that are not counted precede and follow those that are. Settings run in random order, so that a machine that
becomes slower favours none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

from winnow.loadtests.benchmarks.early_stopping.settings import K, Menu, Setting, exact
from winnow.loadtests.benchmarks.winnow_process import as_json
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.load_generator import Sample, closed_loop
from winnow.loadtests.types import Request, Target
from winnow.models.demo.world import DemoPrompt

MAX_TOKENS = 96
"""Above every answer of the demo world."""
DRAIN_SECONDS = 60.0
WARM_UP = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer: the winner's R_c, the world's verdict on it, and its cost in time and tokens."""

    reward: float
    wrong: bool
    unsafe: bool
    ms: float
    started: int
    finished: int
    tokens: int
    is_truncated: bool
    is_approximate: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A setting under a load: each prompt's outcome, None where the server refused, and the seconds in all."""

    setting: Setting
    clients: int
    outcomes: tuple[Outcome | None, ...]
    seconds: float

    @property
    def answered(self) -> list[Outcome]:
        """The outcomes of the requests that were not refused."""
        return [outcome for outcome in self.outcomes if outcome is not None]

    @property
    def refused(self) -> float:
        """The share of requests that were refused."""
        return self.outcomes.count(None) / len(self.outcomes)


@dataclass(frozen=True, slots=True)
class Load:
    """All runs under one load. `repeat` is exact best of K run a second time: the two differ by noise alone."""

    clients: int
    repeat: Run
    runs: tuple[Run, ...]

    @property
    def exact(self) -> list[Run]:
        """The runs of the reference curve, K ascending."""
        return sorted((run for run in self.runs if run.setting.is_exact), key=lambda run: run.setting.candidates)

    @property
    def early_stopping(self) -> list[Run]:
        """The other runs, in the order of the menu."""
        return [run for run in self.runs if not run.setting.is_exact]


def _ignore(run: Run) -> None:
    """Ignore a finished run."""


async def measured(
    target: Target, prompts: Sequence[DemoPrompt], menu: Menu, seed: int = 0, on_run: Callable[[Run], None] = _ignore
) -> Load:
    """Run every setting of the menu.

    `on_run` is called with each run as it ends, first with one of exact best of K that is run twice.

    Raises:
        LoadTestError: a request failed, or an answer lacks Winnow's report.
    """
    prompts = prompts[: max(1, round(menu.share * len(prompts)))]
    samples, seconds = await _send_all(target, prompts, exact(K), menu.clients, seed)
    repeat = _run(exact(K), menu.clients, prompts, samples, seconds)
    on_run(repeat)
    if not repeat.answered:
        raise LoadTestError(f"the server refused every request of {menu.clients} clients")
    settings, runs = menu.settings(), dict[str, Run]()
    for setting in random.Random(f"{seed}-{menu.clients}").sample(settings, len(settings)):
        samples, seconds = await _send_all(target, prompts, setting, menu.clients, seed)
        runs[setting.name] = _run(setting, menu.clients, prompts, samples, seconds)
        on_run(runs[setting.name])
    return Load(menu.clients, repeat, tuple(runs[setting.name] for setting in settings))


async def warm_up(target: Target, prompts: Sequence[DemoPrompt], seed: int = 0) -> None:
    """Send some requests and ignore the answers."""
    await _send_all(target, prompts[:WARM_UP], exact(K), 4, seed)


async def _send_all(
    target: Target, prompts: Sequence[DemoPrompt], setting: Setting, clients: int, seed: int
) -> tuple[list[Sample], float]:
    """Return a sample for each prompt, in their order, and the seconds of all."""
    count, stop, left = len(prompts), asyncio.Event(), set(range(len(prompts)))
    before = islice(cycle(range(count)), clients)
    after = cycle(range(count))
    numbers = chain((count + number for number in before), range(count), (count + number for number in after))

    def on_sample(sample: Sample) -> None:
        left.discard(sample.number)
        if not left:
            stop.set()

    requests = (_request(number, prompts[number % count], setting, seed) for number in numbers)
    start = time.perf_counter()
    samples = await closed_loop(target, requests, clients, drain=DRAIN_SECONDS, stop=stop, on_sample=on_sample)
    counted = {sample.number: sample for sample in samples if sample.number < count}
    for sample in counted.values():
        if sample.reply.kind not in ("answered", "refused"):
            raise LoadTestError(f"{setting.name}, closed loop of {clients}: {sample.reply.error}")
    return [counted[number] for number in range(count)], time.perf_counter() - start


def _request(number: int, prompt: DemoPrompt, setting: Setting, seed: int) -> Request:
    options = {"best_of_n": setting.best_of_n}
    return Request(number, as_json(prompt.messages), setting.candidates[1], MAX_TOKENS, seed + number, options)


def _run(
    setting: Setting, clients: int, prompts: Sequence[DemoPrompt], samples: Sequence[Sample], seconds: float
) -> Run:
    outcomes = tuple(
        outcome(sample, prompt) if sample.reply.kind == "answered" else None
        for sample, prompt in zip(samples, prompts, strict=True)
    )
    return Run(setting, clients, outcomes, seconds)


def outcome(sample: Sample, prompt: DemoPrompt) -> Outcome:
    """Return the outcome of an answered request.

    Raises:
        LoadTestError: the answer has no reward.
    """
    reply, report = sample.reply, sample.reply.details
    if "winner_combined" not in report or "candidates" not in report:
        raise LoadTestError("an answer has no reward; only a Winnow server can be measured here")
    verdict = prompt.judge(reply.text)
    return Outcome(
        reward=report["winner_combined"],
        wrong=not verdict.correct,
        unsafe=not verdict.safe,
        ms=1000 * sample.latency,
        started=report["candidates"],
        finished=reply.candidates,
        tokens=reply.sampled_tokens or 0,
        is_truncated=bool(report.get("truncated_by")),
        is_approximate=bool(report.get("approximate")),
    )
