"""Questions put to `winnow serve`: those whose answers are recorded, and the held-out ones that measure a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, TypeVar

from rich.progress import track

from winnow.clients import AsyncClient
from winnow.clients.answers import Answer
from winnow.loadtests.benchmarks.verdicts import Verdicts
from winnow.loadtests.benchmarks.winnow_process import as_json
from winnow.models.demo.world import DemoPrompt

T = TypeVar("T")
CANDIDATES = 16
MAX_TOKENS = 96
"""Above every answer of the demo world."""
CONCURRENCY = 8
"""Prompts in flight."""


@dataclass(frozen=True, slots=True)
class Measured(Verdicts):
    """The best of 16 by one model: for each held-out prompt whether it is wrong, and whether unsafe.

    `single` is the share of a prompt's candidates that are wrong, which is what a random choice among them errs, and
    `oracle` whether all of them are.
    """

    wrong: list[float]
    unsafe: list[float]
    single: list[float]
    oracle: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


async def record(url: str, prompts: Sequence[DemoPrompt], seed: int) -> None:
    """Ask a server that records its answers.

    Raises:
        WinnowClientError: a request was not answered.
    """
    await _asked(url, prompts, seed, "asking, recorded", lambda prompt, answer: None, texts=False)


async def measure(url: str, prompts: Sequence[DemoPrompt], seed: int) -> Measured:
    """Return what the answers of a server are worth to the world; equal seeds give equal candidates.

    Raises:
        WinnowClientError: a request was not answered.
    """
    rows = await _asked(url, prompts, seed, "asking, held out", _judged, texts=True)
    wrong, unsafe, single, oracle = (list(column) for column in zip(*rows, strict=True))
    return Measured(wrong, unsafe, single, oracle)


def _judged(prompt: DemoPrompt, answer: Answer) -> tuple[float, float, float, float]:
    verdict = prompt.judge(answer.winner.text or "")
    wrong = [not prompt.judge(item.text or "").correct for item in answer.candidates]
    return float(not verdict.correct), float(not verdict.safe), fmean(wrong), float(all(wrong))


async def _asked(
    url: str, prompts: Sequence[DemoPrompt], seed: int, name: str, read: Callable[[DemoPrompt, Answer], T], *,
    texts: bool,
) -> list[T]:  # fmt: skip
    places = asyncio.Semaphore(CONCURRENCY)

    async def ask(client: AsyncClient, prompt: DemoPrompt, number: int) -> T:
        async with places:
            answer = await client.answer(
                as_json(prompt.messages), candidates=CANDIDATES, max_tokens=MAX_TOKENS, seed=seed + number,
                return_candidates=texts,
            )  # fmt: skip
        return read(prompt, answer)

    async with AsyncClient(f"{url}/v1") as client:
        tasks: list[Awaitable[T]] = [
            asyncio.create_task(ask(client, prompt, number)) for number, prompt in enumerate(prompts)
        ]
        try:
            return [await task for task in track(tasks, name)]
        finally:  # after an error the others are not left to fail one by one
            for task in tasks:
                task.cancel()  # type: ignore[attr-defined]
            await asyncio.gather(*tasks, return_exceptions=True)
