"""Checks that the client-side scores equal Winnow's, and pick the same winners.

Checked before anything is timed, on Winnow's own candidates: the times of a baseline that scored something else
would mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.clients import AsyncClient
from winnow.loadtests.benchmarks.baselines.fleet import Fleet
from winnow.loadtests.benchmarks.baselines.scorer import best
from winnow.loadtests.types import Request

TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement over `candidates` answers to `prompts` prompts.

    `largest_difference` is the largest difference of R_s or R_c, `same_winner` counts the prompts with
    the same winner.
    """

    prompts: int
    candidates: int
    largest_difference: float
    same_winner: int

    @property
    def holds(self) -> bool:
        """Whether the scores agree to 1e-3."""
        return self.largest_difference <= TOLERANCE


async def check(fleet: Fleet, requests: Sequence[Request]) -> Agreement:
    """Let Winnow answer, and score its candidates as the baselines do.

    Raises:
        WinnowClientError, httpx.HTTPError: a server did not answer.
    """
    differences, same = [0.0], 0
    async with AsyncClient(f"{fleet.urls['winnow']}/v1") as client:
        for request in requests:
            answer = await client.answer(
                request.messages,
                candidates=request.candidates,
                max_tokens=request.max_tokens,
                seed=request.seed,
                return_candidates=True,
                **request.options,
            )
            scored = answer.report.scored
            rewards = await fleet.scorer(fleet.render(request), [item.text or "" for item in scored])
            for item, reward in zip(scored, rewards, strict=True):
                differences += [abs(item.safety - reward.safety), abs(item.combined - reward.combined)]
            same += scored[best(rewards)].index == answer.report.winner
    return Agreement(len(requests), len(differences) // 2, max(differences), same)
