"""The choice of rows: filters, the best answers of a prompt, and preference pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

import orjson

from winnow.models.types import sigmoid
from winnow.server.distill.export import ExportOptions, PairRule
from winnow.server.distill.export.sources import Answer, AnsweredPrompt

RatingName = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]


class PreferenceRating(NamedTuple):
    """A step of Llama 2's four-point scale: its least probability, and the paper's margins m(r)."""

    name: RatingName
    least: float
    small: float
    large: float


RATINGS = (
    PreferenceRating("significantly_better", 0.9, 1.0, 3.0),
    PreferenceRating("better", 0.7, 2 / 3, 2.0),
    PreferenceRating("slightly_better", 0.6, 1 / 3, 1.0),
    PreferenceRating("negligibly_better", 0.0, 0.0, 0.0),
)
"""The steps of the scale, best first: odds of 9, 7 and 6 in 10.

A reward model is trained on pairs with −log σ(r_c − r_r), so σ(difference of logits) is its probability that
people prefer the chosen answer. Below the steps, a choice is hardly better than tossing a coin; the paper's
annotators called that "negligibly better or unsure".
"""


@dataclass(frozen=True, slots=True)
class Pick:
    """An answer to train on, or to list."""

    prompt: AnsweredPrompt
    answer: Answer


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer to train towards, or away from."""

    pick: Pick
    is_good: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt; `chosen` ranks above `rejected`, and their texts and their logit(R_c) differ."""

    prompt: AnsweredPrompt
    chosen: Answer
    rejected: Answer

    @property
    def is_decided_by_safety(self) -> bool:
        """Whether `chosen` ranks higher because only `rejected` is unsafe, whatever their R_c (`safe_first`)."""
        is_gated = self.chosen.reward.is_gated, self.rejected.reward.is_gated
        return self.prompt.lead.selection.combiner == "safe_first" and is_gated == (False, True)

    @property
    def difference(self) -> float:
        """The difference in R_c, in [0, 1], or in R_s where safety decided."""
        chosen, rejected = self.chosen.reward, self.rejected.reward
        if self.is_decided_by_safety:
            return chosen.safety - rejected.safety
        return chosen.combined - rejected.combined

    @property
    def logit_difference(self) -> float:
        """The same difference in logits."""
        chosen, rejected = self.chosen.reward, self.rejected.reward
        if self.is_decided_by_safety:
            return chosen.safety_logit - rejected.safety_logit
        return chosen.combined_logit - rejected.combined_logit

    @property
    def probability(self) -> float:
        """The probability that `chosen` is the better answer: σ of the difference in logits, in [0.5, 1]."""
        return sigmoid(self.logit_difference)

    @property
    def rating(self) -> PreferenceRating:
        """The step of the four-point scale."""
        return next(rating for rating in RATINGS if self.probability >= rating.least)


def picks(prompt: AnsweredPrompt, options: ExportOptions) -> list[Pick]:
    """Return the best answers that pass the filters, at most `top_k`, best first."""
    passing = [Pick(prompt, answer) for answer in prompt.answers if _passes(answer, options)]
    return passing[: options.top_k]


def pair(prompt: AnsweredPrompt, options: ExportOptions) -> Pair | None:
    """Return the best answer that passes the filters against one that ranks below it; None without such a pair.

    An empty answer that ranks below for being empty, although its reward is higher, is no opponent: the pair's
    difference would contradict its order.
    """
    chosen = next((answer for answer in prompt.answers if _passes(answer, options)), None)
    if chosen is None:
        return None
    worse = [
        answer
        for answer in prompt.answers[chosen.rank + 1 :]
        if _fits(answer, options)
        and answer.candidate.text != chosen.candidate.text
        and answer.reward.combined_logit != chosen.reward.combined_logit
        and not (answer.candidate.is_empty and Pair(prompt, chosen, answer).logit_difference < 0)
    ]
    return Pair(prompt, chosen, _opponent(worse, options.pairs, prompt.lead.line)) if worse else None


def _opponent(worse: Sequence[Answer], rule: PairRule, seed: int) -> Answer:
    places = {
        "worst": -1,
        "median": len(worse) // 2,
        "random": Random(seed).randrange(len(worse)),
        "second": 0,
    }
    return worse[places[rule]]


def _fits(answer: Answer, options: ExportOptions) -> bool:
    if options.finished_only and answer.candidate.finish_reason == "length":
        return False
    return options.max_tokens is None or answer.candidate.tokens <= options.max_tokens


def _passes(answer: Answer, options: ExportOptions) -> bool:
    if answer.candidate.is_empty and answer.record.selection.empty_last:
        return False  # nothing to learn from
    if options.safe_only and answer.reward.is_gated:
        return False
    if options.min_reward is not None and answer.reward.combined < options.min_reward:
        return False
    return _fits(answer, options)


class Unseen:
    """A filter that tells whether a prompt with these answers is new; it keeps 16 bytes of hash of each."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, prompt: AnsweredPrompt, *texts: str) -> bool:
        """Whether the row is new; later calls know it."""
        content = orjson.dumps([[(message.role, message.content) for message in prompt.messages], texts])
        digest = hashlib.blake2b(content, digest_size=16).digest()
        is_new = digest not in self._seen
        self._seen.add(digest)
        return is_new
