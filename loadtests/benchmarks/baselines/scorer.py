"""Client-side scoring: both reward models are asked over `/classify`, and Winnow's own combiner ranks the answers.

vLLM applies a sigmoid to a one-label classifier unless `use_activation` is off, so the scores are R_s and R_h
in (0, 1). In float32 they tie above a logit of about 17 only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from winnow.loadtests.benchmarks.baselines.prompts import Rendered
from winnow.models.combiner import combine, rank
from winnow.models.types import Candidate, Reward, ScoredCandidate, logit


def best(rewards: Sequence[Reward]) -> int:
    """Return the position of the best candidate in Winnow's ranking; ties go to the lowest."""
    scored = [ScoredCandidate(Candidate(index, "", "stop", 0), reward) for index, reward in enumerate(rewards)]
    return rank(scored, "llama2")[0]


@dataclass(frozen=True, slots=True)
class Scorer:
    """Both reward models' servers.

    All candidates of a prompt go into one request per model, and both models are asked at once; for a safety
    prompt, the safety model alone.
    """

    http: httpx.AsyncClient
    safety_url: str
    helpfulness_url: str

    async def __call__(self, prompt: Rendered, answers: Sequence[str]) -> list[Reward]:
        """Score the answers to one prompt, in their order.

        Raises:
            httpx.HTTPError: a server could not be reached, or refused.
            ValueError: it did not return one score for each text.
            CandidateFailed: a score is NaN.
        """
        texts = [prompt.with_answer(answer) for answer in answers]
        urls = [self.safety_url] if prompt.is_safety else [self.safety_url, self.helpfulness_url]
        scores = await asyncio.gather(*(self._classify(url, texts) for url in urls))
        return [combine(prompt.is_safety, safety, *rest or (None,)) for safety, *rest in zip(*scores, strict=True)]

    async def _classify(self, url: str, texts: Sequence[str]) -> list[float]:
        """Return the logit of each text."""
        response = await self.http.post(f"{url}/classify", json={"input": texts, "add_special_tokens": False})
        response.raise_for_status()
        rows = sorted(response.json()["data"], key=lambda row: row["index"])
        scores = [logit(float(row["probs"][0])) for row in rows if len(row["probs"]) == 1]
        if len(scores) != len(texts):
            raise ValueError(f"{len(scores)} scores for {len(texts)} texts")
        return scores
