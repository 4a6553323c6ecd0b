"""The reference of a reward model: one unpadded forward pass of transformers in float32.

`winnow check` and the tests compare served scores with it. Slow on purpose: no batching, no cache.
"""

from __future__ import annotations

import asyncio

import torch
from transformers import AutoModelForSequenceClassification

from winnow.models.engines.base import RewardInput
from winnow.models.types import Prompt


class ReferenceRewardModel:
    """Scores answers with transformers; a `RewardModel`."""

    def __init__(self, checkpoint: str, reward_input: RewardInput) -> None:
        self._model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
        # Score at the last token given: with a pad id, which is often EOS, transformers would search for another place.
        self._model.config.pad_token_id = None
        self._input = reward_input

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`."""
        return await asyncio.to_thread(self._logit, self._input.token_ids(prompt, answer))

    def _logit(self, ids: list[int]) -> float:
        with torch.inference_mode():
            return float(self._model(input_ids=torch.tensor([ids])).logits[0, 0])
