"""Pair accuracy of the reward models: on pairs that the world writes, and on the hardest of sampled answers.

The wire gives R_h only where it decides R_c. So the helpfulness model's scores come from a second server, which runs
it in the place of the safety model and reports its score of every answer as R_s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from winnow.clients import AsyncClient
from winnow.loadtests.benchmarks.demo_eval.judged import CONCURRENCY, Judged
from winnow.loadtests.benchmarks.winnow_process import as_json
from winnow.models.demo.world import Pair
from winnow.models.statistics import Interval, wilson_interval
from winnow.models.types import Message

PAIRS = 2000
AT_ONCE = 4 * CONCURRENCY
"""Requests for scores in flight: most are of two answers."""
Scores = tuple[float, float]
"""The scores of a better and of a worse answer to one prompt."""


@dataclass(frozen=True, slots=True)
class PairFigures:
    """One reward model's pair accuracies, with 95 % Wilson intervals, whose counts are the pairs.

    `written` is on pairs that the world writes; `hardest` is on each prompt's best-scored right answer against its
    best-scored wrong one.
    """

    written: Interval
    hardest: Interval


async def of_safety_model(client: AsyncClient, pairs: Sequence[Pair], judged: Sequence[Judged]) -> PairFigures:
    """Return the safety model's figures; right answers are the safe ones.

    Raises:
        WinnowClientError: a request was not answered.
    """
    written = await pair_scores(client, pairs)
    hardest = [
        hardest_pair([item.safety for item in one.candidates], [verdict.safe for verdict in one.verdicts])
        for one in judged
    ]
    return PairFigures(accuracy(written), accuracy(hardest))


async def of_helpfulness_model(client: AsyncClient, pairs: Sequence[Pair], judged: Sequence[Judged]) -> PairFigures:
    """Return the helpfulness model's figures, which the server of `client` runs in the safety model's place.

    Raises:
        WinnowClientError: a request was not answered.
    """
    written = await pair_scores(client, pairs)
    scores = await scores_of(client, [(one.prompt.messages, one.texts) for one in judged])
    hardest = [
        hardest_pair(own, [verdict.correct for verdict in one.verdicts])
        for own, one in zip(scores, judged, strict=True)
    ]
    return PairFigures(accuracy(written), accuracy(hardest))


async def pair_scores(client: AsyncClient, pairs: Sequence[Pair]) -> list[Scores]:
    """Return the R_s of each pair's chosen and rejected answer.

    Raises:
        WinnowClientError: a request was not answered.
    """
    scores = await scores_of(client, [(pair.messages, [pair.chosen, pair.rejected]) for pair in pairs])
    return [(chosen, rejected) for chosen, rejected in scores]


async def scores_of(
    client: AsyncClient, answered: Sequence[tuple[Sequence[Message], Sequence[str]]]
) -> list[list[float]]:
    """Return the R_s of each prompt's answers; equal texts are scored once.

    Raises:
        WinnowClientError: a request was not answered.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def scored(messages: Sequence[Message], answers: Sequence[str]) -> list[float]:
        texts = list(dict.fromkeys(answers))
        async with places:
            ratings = await client.rewards(as_json(messages), texts, is_safety=True)
        by_text = {text: rating.safety for text, rating in zip(texts, ratings, strict=True)}
        return [by_text[answer] for answer in answers]

    return await asyncio.gather(*(scored(messages, answers) for messages, answers in answered))


def hardest_pair(scores: Sequence[float], is_right: Sequence[bool]) -> Scores | None:
    """Return the best score of a right answer and the best of a wrong one; None without answers of both kinds."""
    right, wrong = (
        [score for score, is_this in zip(scores, is_right, strict=True) if is_this == kind] for kind in (True, False)
    )
    return (max(right), max(wrong)) if right and wrong else None


def accuracy(pairs: Sequence[Scores | None]) -> Interval:
    """Return the share of pairs whose better answer scores strictly higher; None is no pair."""
    known = [pair for pair in pairs if pair is not None]
    return wilson_interval(sum(better > worse for better, worse in known), len(known))
