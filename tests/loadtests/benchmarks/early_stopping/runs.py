"""Made-up runs: an exact curve, early-stopping settings beside it, and a server that answers from a formula."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.measuring import Load, Outcome, Run
from winnow.loadtests.benchmarks.early_stopping.sentences import Measurement
from winnow.loadtests.benchmarks.early_stopping.settings import RANGE, Setting, accept, adaptive, exact, rejection
from winnow.loadtests.benchmarks.early_stopping.verdicts import figures
from winnow.loadtests.types import Reply, Request

PROMPTS = 60
MACHINE = {"cpu": "a CPU", "cores": 2, "platform": "Linux x86_64", "python": "3.11", "winnow": "0.1.0"}
EXACT = (1, 2, 4, 8, 16)


def outcomes(reward: float, tokens: float, ms: float, *, refused: int = 0) -> tuple[Outcome | None, ...]:
    """Outcomes with about these means; prompts differ in the same way in every run. The first ones are refused."""
    rng = random.Random(0)
    found: list[Outcome | None] = []
    for number in range(PROMPTS):
        easy, size = rng.uniform(-0.05, 0.05), rng.uniform(0.8, 1.2)
        wrong, unsafe, is_truncated = number % 5 == 0, number % 9 == 0, number % 2 == 0
        spent = round(tokens * size)
        answered = Outcome(reward + easy, wrong, unsafe, ms * size, 16, 8, spent, is_truncated, is_approximate=False)
        found.append(None if number < refused else answered)
    return tuple(found)


def run(setting: Setting, reward: float, tokens: float, ms: float, *, clients: int = 1, refused: int = 0) -> Run:
    """A run of a setting."""
    return Run(setting, clients, outcomes(reward, tokens, ms, refused=refused), 2.0)


def exact_run(candidates: int, clients: int = 1) -> Run:
    """Exact best of K: 1 − 0.4 / K, 100 tokens and 50 ms a candidate."""
    return run(exact(candidates), 1 - 0.4 / candidates, 100 * candidates, 50.0 * candidates, clients=clients)


EARLY_STOPPING = (
    run(accept(0.8), 0.9, 200, 100),  # as good as K = 4 for half of it
    run(rejection((4,), 0.5), 0.9, 600, 300),  # as good as K = 4 for more
    run(rejection((2, 8), 0.25), 0.5, 90, 20),  # worse than K = 1
    run(Setting("candidates 2–16", "", RANGE), 0.9, 300, 300),  # fewer tokens, more time
    run(adaptive("reward", 0.9, 4, 4), 0.9, 200, 100, refused=6),
)


def load(clients: int = 1, early_stopping: Sequence[Run] = EARLY_STOPPING, repeat_ms: float = 800.0) -> Load:
    """A load; exact K = 16 takes 800 ms, and `repeat_ms` when it is run again."""
    repeat = run(exact(16), 1 - 0.4 / 16, 1600, repeat_ms, clients=clients)
    return Load(clients, repeat, (*(exact_run(candidates, clients) for candidates in EXACT), *early_stopping))


def measurement(*loads: Load, is_quick: bool = False) -> Measurement:
    """A measurement, from which a page is made."""
    told = [figures(each) for each in loads or (load(), load(8))]
    return Measurement("2026-01-01T00:00+00:00", MACHINE, "One server, `winnow serve`", PROMPTS, 0, is_quick, told)


@dataclass
class Formula:
    """Answers at once, as Winnow would; `change` may put another reply in the place of one."""

    change: Callable[[Request, Reply], Reply] = lambda request, reply: reply
    requests: list[Request] = field(default_factory=list)
    name: str = "formula"

    async def send(self, request: Request) -> Reply:
        self.requests.append(request)
        details: dict[str, Any] = {
            "winner_combined": 0.75,
            "candidates": request.candidates,
            "approximate": "early_rejection" in request.options["best_of_n"],
        }
        if "accept_reward" in request.options["best_of_n"]:
            details["truncated_by"] = "accept_reward"
        reply = Reply("answered", time.perf_counter(), text="?", candidates=3, sampled_tokens=33, details=details)
        return self.change(request, reply)
