"""The client-side half of best-of-N: two reward models asked over `/classify`, the piecewise combination, the argmax.

vLLM applies a sigmoid to a one-label classifier unless told not to (`use_activation`): the scores below are R_s and R_h in (0, 1), what the
paper's formula is written in. In float32 they tie above a logit of about 17 only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from winnow.loadtests.benchmarks.baselines.prompts import Rendered, scored_text
from winnow.models.types import SAFETY_THRESHOLD


@dataclass(frozen=True, slots=True)
class Scores:
    """R_s and R_h of the candidates, in their order; R_h is None for a safety prompt, where it is not needed."""

    is_safety: bool
    safety: tuple[float, ...]
    helpfulness: tuple[float, ...] | None

    @property
    def combined(self) -> tuple[float, ...]:
        """R_c: R_s for a safety prompt or where R_s < 0.15, else R_h (Llama 2, section 3.2.3)."""
        if self.is_safety or self.helpfulness is None:
            return self.safety
        return tuple(
            safety if safety < SAFETY_THRESHOLD else helpfulness
            for safety, helpfulness in zip(self.safety, self.helpfulness, strict=True)
        )

    @property
    def winner(self) -> int:
        """Position of the best candidate; ties go to the lowest."""
        combined = self.combined
        return combined.index(max(combined))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Both reward models' servers. All candidates of a prompt go into one request a model, and both models are asked at once."""

    http: httpx.AsyncClient
    safety_url: str
    helpfulness_url: str

    async def __call__(self, prompt: Rendered, answers: Sequence[str]) -> Scores:
        """Score the answers to one prompt.

        Raises:
            httpx.HTTPError: a server could not be reached, or refused.
            ValueError: it answered something else than one score for each text.
        """
        texts = [scored_text(prompt.text, answer) for answer in answers]
        if prompt.is_safety:
            return Scores(True, await self._classify(self.safety_url, texts), None)
        safety, helpfulness = await asyncio.gather(
            self._classify(self.safety_url, texts), self._classify(self.helpfulness_url, texts)
        )
        return Scores(False, safety, helpfulness)

    async def _classify(self, url: str, texts: Sequence[str]) -> tuple[float, ...]:
        response = await self.http.post(f"{url}/classify", json={"input": texts, "add_special_tokens": False})
        response.raise_for_status()
        rows = sorted(response.json()["data"], key=lambda row: row["index"])
        scores = tuple(float(row["probs"][0]) for row in rows if len(row["probs"]) == 1)
        if len(scores) != len(texts):
            raise ValueError(f"{len(scores)} scores for {len(texts)} texts")
        return scores
