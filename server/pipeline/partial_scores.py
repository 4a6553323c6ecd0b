"""The scores of unfinished answers, for early rejection: computed at checkpoints, while the candidates decode on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from winnow.models.errors import CandidateFailed
from winnow.models.types import Candidate, Reward, ScoredCandidate
from winnow.server.pipeline.early_stopping import RejectionRounds


@dataclass(slots=True)
class PartialScores:
    """The partial scores of one run; `reject` is called with the candidates that the `rounds` drop."""

    rounds: RejectionRounds
    reward: Callable[[str], asyncio.Task[Reward]]
    reject: Callable[[Iterable[int]], None]
    empty_last: bool
    _tasks: dict[asyncio.Task[None], int] = field(default_factory=dict)

    def start(self, group: asyncio.TaskGroup, checkpoint: int, index: int, text: str) -> None:
        """Start scoring the partial answer of a candidate that has passed a checkpoint.

        One that has no text yet, such as a line end or the first byte of a character, tells nothing: it goes on.
        """
        if self.empty_last and not text.strip():
            self.reject(self.rounds.score(checkpoint, index, None))
            return
        task = group.create_task(self._score(checkpoint, index, text))
        self._tasks[task] = index
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def end(self, index: int, *, competes: bool, is_last: bool) -> None:
        """Note that a candidate has finished; it `competes` if it has a score. After the last nothing is scored."""
        self.reject(self.rounds.end(index, competes=competes))
        self.cancel(self._tasks.values() if is_last else [index])

    def cancel(self, indices: Iterable[int]) -> None:
        """Cancel the partial scores of these candidates."""
        ended = set(indices)
        for task, index in self._tasks.items():
            if index in ended:
                task.cancel()

    async def _score(self, checkpoint: int, index: int, text: str) -> None:
        try:
            reward = await asyncio.shield(self.reward(text))
            part = ScoredCandidate(Candidate(index, text, "length", 0), reward)
        except CandidateFailed:
            part = None
        self.reject(self.rounds.score(checkpoint, index, part))
