"""its_hub's `BestOfN` behind lines of JSON (see `subprocess_client`).

A script for the interpreter of the baselines' environment, which has all that its modules import. The algorithm
is its_hub's. The language model and the outcome reward model, which it leaves to its users, ask the same vLLM
servers with the same bodies as the other baselines: `n=1` requests with Winnow's seeds, and `/classify`.

Usage: its_hub_driver.py POLICY_URL SAFETY_URL HELPFULNESS_URL
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import httpx
from its_hub.api import AbstractLanguageModel, AbstractOutcomeRewardModel
from its_hub.core.algorithms.bon import BestOfN

from winnow.loadtests.benchmarks.baselines.prompts import Rendered
from winnow.loadtests.benchmarks.baselines.scorer import Scorer
from winnow.loadtests.benchmarks.baselines.subprocess_client import parsed, write_line
from winnow.loadtests.benchmarks.baselines.systems import Completions, new_client
from winnow.loadtests.types import Request
from winnow.models.errors import CandidateFailed
from winnow.models.sampling import candidate_seed


class Policy(AbstractLanguageModel):  # type: ignore[misc]
    """Samples one candidate a call behind one prompt's token ids."""

    def __init__(self, policy: Completions, prompt: Rendered, request: Request) -> None:
        self.policy, self.prompt, self.request = policy, prompt, request
        self.calls = self.tokens = 0

    async def agenerate_single(self, messages: Any, stop: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Sample the next candidate."""
        index = self.calls
        self.calls += 1
        seed = None if self.request.seed is None else candidate_seed(self.request.seed, index)
        sampled = await self.policy.sample(self.prompt, self.request, 1, seed)
        self.tokens += sampled.tokens
        return {"role": "assistant", "content": sampled.texts[0]}

    async def agenerate(self, messages: Any, stop: Any = None, **kwargs: Any) -> Any:
        """Raise: `BestOfN` does not call it."""
        raise NotImplementedError


class RewardModel(AbstractOutcomeRewardModel):  # type: ignore[misc]
    """R_c from both reward models, all candidates in one request to each."""

    def __init__(self, scorer: Scorer, prompt: Rendered) -> None:
        self.scorer, self.prompt = scorer, prompt
        self.began = 0.0

    async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> list[float]:
        """Score conversations that end with a candidate."""
        self.began = time.perf_counter()
        rewards = await self.scorer(self.prompt, [dialog[-1].content for dialog in messages])
        return [reward.combined_logit for reward in rewards]

    def score(self, messages: Any, **kwargs: Any) -> Any:
        """Raise: `BestOfN` does not call it."""
        raise NotImplementedError


async def answer(policy: Completions, scorer: Scorer, line: bytes) -> None:
    """Run one best-of-N and print its outcome."""
    number, prompt, request = parsed(line)
    language_model, rewards = Policy(policy, prompt, request), RewardModel(scorer, prompt)
    question = "the prompt's token ids are with the model"
    try:
        best = await BestOfN(rewards).ainfer(language_model, question, request.candidates)
    except (httpx.HTTPError, CandidateFailed, RuntimeError, ValueError, KeyError) as error:
        write_line(number=number, error=f"{type(error).__name__}: {error}")
        return
    tail = time.perf_counter() - rewards.began if rewards.began else None
    write_line(number=number, text=best["content"], tokens=language_model.tokens, score_tail=tail)


async def main(policy_url: str, safety_url: str, helpfulness_url: str) -> None:
    """Answer lines until the input ends."""
    lines, tasks = asyncio.StreamReader(limit=2**24), set[asyncio.Task[None]]()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with new_client() as http:
        policy, scorer = Completions(http, policy_url), Scorer(http, safety_url, helpfulness_url)
        write_line(ready=True)
        while line := await lines.readline():
            task = asyncio.create_task(answer(policy, scorer, line))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
