"""Whether the systems do the same thing: the client-side scores are Winnow's, and choose Winnow's winners.

Checked before anything is timed, on Winnow's own candidates: a baseline that scored something else would be fast or slow for the
wrong reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.loadtests.benchmarks.baselines.fleet import Fleet
from winnow.loadtests.benchmarks.baselines.systems import WinnowServer
from winnow.loadtests.types import Ask

TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over `candidates` answers to `prompts` prompts: the largest difference of R_s, R_h or R_c, and how often the winner is the same."""

    prompts: int
    candidates: int
    largest_difference: float
    same_winner: int

    @property
    def holds(self) -> bool:
        """Whether the scores agree to 1e-3."""
        return self.largest_difference <= TOLERANCE


async def check(fleet: Fleet, asks: Sequence[Ask]) -> Agreement:
    """Let Winnow answer, and score its candidates the way the baselines do.

    Raises:
        httpx.HTTPError: a server did not answer.
    """
    winnow = WinnowServer(fleet.http, fleet.urls["winnow"])
    differences, same = [0.0], 0
    for ask in asks:
        told = (await winnow.post(ask, return_candidates=True))["best_of_n"]
        scores = await fleet.scorer(fleet.render(ask), [item["text"] for item in told["scored"]])
        for place, item in enumerate(told["scored"]):
            differences += [abs(item["safety"] - scores.safety[place]), abs(item["combined"] - scores.combined[place])]
        same += told["scored"][scores.winner]["index"] == told["winner"]
    return Agreement(len(asks), len(differences) // 2, max(differences), same)
