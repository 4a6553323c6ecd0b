"""The transformers reference of a reward model: one unpadded forward pass in float32, the plainest way to compute a score.

What `winnow check` and the tests compare the served scores with. Slow on purpose: no batching, no cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from transformers import AutoModelForSequenceClassification

from winnow.models.reward import Calibration, scored_ids
from winnow.models.types import Prompt


class ReferenceRewardModel:
    """Scores answers with transformers; a `RewardModel`."""

    def __init__(self, checkpoint: str, eos_id: int, calibration: Calibration | None = None) -> None:
        self._model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
        # Score at the last token given: with a pad id, which is often EOS, transformers would search for another place.
        self._model.config.pad_token_id = None
        self._eos_id = eos_id
        self._calibration = calibration or Calibration()

    async def score(self, prompt: Prompt, answer_ids: Sequence[int]) -> float:
        """Score one answer; see `RewardModel.score`."""
        return self._calibration(await asyncio.to_thread(self._logit, scored_ids(prompt, answer_ids, self._eos_id)))

    def _logit(self, ids: list[int]) -> float:
        with torch.inference_mode():
            return float(self._model(input_ids=torch.tensor([ids])).logits[0, 0])
