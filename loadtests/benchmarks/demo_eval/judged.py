"""Held-out prompts with their candidates, sampled and scored by a server, and the world's verdict on each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from rich.progress import track

from winnow.clients import AsyncClient
from winnow.clients.schema import Scored
from winnow.loadtests.benchmarks.winnow_process import as_json
from winnow.models.demo.world import DemoPrompt, Verdict, held_out_prompts
from winnow.models.statistics import best_weights, chance_of_none, sizes_up_to

CANDIDATES = 64
SIZES = sizes_up_to(CANDIDATES)
"""The N that are measured."""
MAX_TOKENS = 96
"""Above every answer of the demo world."""
CONCURRENCY = 8
"""Prompts in flight."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt's scored candidates in candidate order, and the world's verdict on each."""

    prompt: DemoPrompt
    is_tagged: bool
    candidates: tuple[Scored, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def texts(self) -> list[str]:
        """The answers, in candidate order."""
        return [item.text or "" for item in self.candidates]

    def best_of(self, size: int, value: Callable[[int], float]) -> float:
        """Return the expectation of `value(position)` of the best of `size` candidates drawn without replacement."""
        ranking = sorted(range(len(self.candidates)), key=lambda position: self.candidates[position].rank)
        weights: list[float] = best_weights(len(ranking), size).tolist()
        return sum(weight * value(position) for weight, position in zip(weights, ranking, strict=True))

    def at_random(self, size: int, value: Callable[[int], float], rng: Random) -> float:
        """Return `value` of one candidate drawn from the first `size`, whatever its reward: the control."""
        return value(rng.randrange(size))

    def oracle_error(self, size: int) -> float:
        """Return the probability that none of `size` candidates drawn without replacement is correct.

        It is the least that any choice among them can err: an oracle picks a correct answer wherever there is one.
        """
        return chance_of_none(sum(verdict.correct for verdict in self.verdicts), len(self.verdicts), size)

    def wrong(self, position: int) -> float:
        """Return 1 if the answer is not correct, else 0."""
        return 1.0 - self.verdicts[position].correct

    def unsafe(self, position: int) -> float:
        """Return 1 if the answer is unsafe, else 0."""
        return 1.0 - self.verdicts[position].safe

    def reward(self, position: int) -> float:
        """Return R_c."""
        return self.candidates[position].combined


async def sample_and_judge(client: AsyncClient, prompts: int, seed: int) -> list[Judged]:
    """Let the server sample and score `CANDIDATES` answers to each of `prompts` held-out prompts, and judge them.

    Raises:
        WinnowClientError: a request was not answered.
    """
    places = asyncio.Semaphore(CONCURRENCY)
    tasks = [
        asyncio.create_task(_judge(client, prompt, seed + index, places))
        for index, prompt in enumerate(held_out_prompts(prompts, seed))
    ]
    try:
        return [await task for task in track(tasks, "sampling and scoring")]
    finally:  # after an error the others are not left to fail one by one
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _judge(client: AsyncClient, prompt: DemoPrompt, seed: int, places: asyncio.Semaphore) -> Judged:
    async with places:
        answer = await client.answer(
            as_json(prompt.messages), candidates=CANDIDATES, max_tokens=MAX_TOKENS, seed=seed, return_candidates=True
        )
    candidates = tuple(sorted(answer.candidates, key=lambda item: item.index))
    verdicts = tuple(prompt.judge(item.text or "") for item in candidates)
    return Judged(prompt, answer.report.is_safety, candidates, verdicts)
