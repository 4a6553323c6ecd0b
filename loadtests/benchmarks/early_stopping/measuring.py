"""Asks a server the same prompts, with the same seeds, in every setting and under every load: `measured`.

A run is a closed loop. Its first and last requests would meet a server that is filling or emptying, so others that do not count come
before and after those that do. Settings run in an order drawn by chance, so that a machine that grows slower favours none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

from winnow.loadtests.benchmarks.early_stopping.settings import K, Menu, Setting, exact
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.load_generator import Sample, closed_loop
from winnow.loadtests.types import Ask, System
from winnow.models.demo.world import DemoPrompt

MAX_TOKENS = 96
"""Above every answer of the demo world."""
DRAIN_SECONDS = 60.0
WARM_UP = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer: the winner's R_c and what the world says of it, the time it took, and what was spent on it."""

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
    """A setting under a load: an outcome for each prompt, None where the server refused, and seconds for all of them."""

    setting: Setting
    clients: int
    outcomes: tuple[Outcome | None, ...]
    seconds: float

    @property
    def refused(self) -> float:
        """The share of requests that were turned away."""
        return self.outcomes.count(None) / len(self.outcomes)


@dataclass(frozen=True, slots=True)
class Load:
    """All runs under one load. `repeat` is exact best of K once more, run first: what differs between the two is noise."""

    clients: int
    repeat: Run
    runs: tuple[Run, ...]

    @property
    def exact(self) -> list[Run]:
        """The runs of the reference curve, K ascending."""
        return sorted((run for run in self.runs if run.setting.is_exact), key=lambda run: run.setting.candidates)

    @property
    def dials(self) -> list[Run]:
        """The other runs, as the menu lists them."""
        return [run for run in self.runs if not run.setting.is_exact]


def _nobody(run: Run) -> None:
    """Nobody watches."""


async def measured(
    system: System, prompts: Sequence[DemoPrompt], menu: Menu, seed: int = 0, seen: Callable[[Run], None] = _nobody
) -> Load:
    """Every setting of the menu; `seen` is called with each run as it ends, first with the one that deadlines are calibrated by.

    Raises:
        LoadTestError: a request failed, or an answer does not say what Winnow's do.
    """
    prompts = prompts[: max(1, round(menu.share * len(prompts)))]
    calibration, seconds = await _ask_all(system, prompts, exact(K), menu.clients, seed)
    repeat = _run(exact(K), menu.clients, prompts, calibration, seconds)
    seen(repeat)
    answered = [sample for sample in calibration if sample.reply.kind == "answered"]
    if not answered:
        raise LoadTestError(f"the server refused every request of {menu.clients} clients")
    settings, runs = menu.settings(answered), dict[str, Run]()
    for setting in random.Random(f"{seed}-{menu.clients}").sample(settings, len(settings)):
        samples, seconds = await _ask_all(system, prompts, setting, menu.clients, seed)
        runs[setting.name] = _run(setting, menu.clients, prompts, samples, seconds)
        seen(runs[setting.name])
    return Load(menu.clients, repeat, tuple(runs[setting.name] for setting in settings))


async def warm_up(system: System, prompts: Sequence[DemoPrompt], seed: int = 0) -> None:
    """Answer some requests that nothing is made of."""
    await _ask_all(system, prompts[:WARM_UP], exact(K), 4, seed)


async def _ask_all(
    system: System, prompts: Sequence[DemoPrompt], setting: Setting, clients: int, seed: int
) -> tuple[list[Sample], float]:
    """A sample for each prompt, in their order, and the seconds of all."""
    count, stop, left = len(prompts), asyncio.Event(), set(range(len(prompts)))
    before = islice(cycle(range(count)), clients)
    others = cycle(range(count))
    numbers = chain((count + number for number in before), range(count), (count + number for number in others))

    def seen(sample: Sample) -> None:
        left.discard(sample.number)
        if not left:
            stop.set()

    asks = (_ask(number, prompts[number % count], setting, seed) for number in numbers)
    start = time.perf_counter()
    samples = await closed_loop(system, asks, clients, drain=DRAIN_SECONDS, stop=stop, seen=seen)
    counted = {sample.number: sample for sample in samples if sample.number < count}
    for sample in counted.values():
        if sample.reply.kind not in ("answered", "refused"):
            raise LoadTestError(f"{setting.name}, closed loop of {clients}: {sample.reply.error}")
    return [counted[number] for number in range(count)], time.perf_counter() - start


def _ask(number: int, prompt: DemoPrompt, setting: Setting, seed: int) -> Ask:
    messages = tuple({"role": message.role, "content": message.content} for message in prompt.messages)
    return Ask(number, messages, setting.candidates[1], MAX_TOKENS, seed + number, {"best_of_n": setting.best_of_n})


def _run(
    setting: Setting, clients: int, prompts: Sequence[DemoPrompt], samples: Sequence[Sample], seconds: float
) -> Run:
    outcomes = tuple(
        outcome(sample, prompt) if sample.reply.kind == "answered" else None
        for sample, prompt in zip(samples, prompts, strict=True)
    )
    return Run(setting, clients, outcomes, seconds)


def outcome(sample: Sample, prompt: DemoPrompt) -> Outcome:
    """What came of an answered request.

    Raises:
        LoadTestError: the answer has no reward.
    """
    reply, told = sample.reply, sample.reply.details
    if "winner_combined" not in told or "candidates" not in told:
        raise LoadTestError("an answer has no reward; only a Winnow server can be measured here")
    verdict = prompt.judge(reply.text)
    return Outcome(
        reward=told["winner_combined"],
        wrong=not verdict.correct,
        unsafe=not verdict.safe,
        ms=1000 * sample.latency,
        started=told["candidates"],
        finished=reply.candidates,
        tokens=reply.sampled_tokens,
        is_truncated=bool(told.get("truncated_by")),
        is_approximate=bool(told.get("approximate")),
    )
