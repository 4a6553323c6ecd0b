"""A reward model that scores in large batches: what an offline run wants, and nobody who waits for an answer.

Candidates finish one by one. Scored one by one, a small model's passes are mostly overhead; here they wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from winnow.models.reward_model import RewardModel
from winnow.models.types import Prompt

SIZE = 256
SECONDS = 0.25


class Gathered:
    """A `RewardModel` that asks `model` for `size` scores at a time, or for fewer once the oldest has waited for `seconds`."""

    def __init__(self, model: RewardModel, size: int = SIZE, seconds: float = SECONDS) -> None:
        self._model = model
        self._size = size
        self._seconds = seconds
        self._waiting = 0
        self._gate = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def score(self, prompt: Prompt, answer_ids: Sequence[int]) -> float:
        """Score one answer; see `RewardModel.score`."""
        self._waiting += 1
        gate = self._gate
        if self._waiting >= self._size:
            self._open()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._open)
        await gate.wait()
        return await self._model.score(prompt, answer_ids)

    def _open(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        self._waiting = 0
        self._gate.set()
        self._gate = asyncio.Event()
