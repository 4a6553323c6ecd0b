"""Which answers become rows: the filters, the best answers of a prompt, and the pairs of preferences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

import orjson

from winnow.models.types import sigmoid
from winnow.server.distill.export.answered import Answer, AnsweredPrompt
from winnow.server.distill.export.options import ExportOptions, PairRule

RatingName = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]


class Rating(NamedTuple):
    """A step of Llama 2's four-point scale: it begins at `least`, a probability, and has the margins m(r) of the paper's loss."""

    name: RatingName
    least: float
    small: float
    large: float


RATINGS = (
    Rating("significantly_better", 0.9, 1.0, 3.0),
    Rating("better", 0.7, 2 / 3, 2.0),
    Rating("slightly_better", 0.6, 1 / 3, 1.0),
    Rating("negligibly_better", 0.0, 0.0, 0.0),
)
"""A reward model learns pairs by −log σ(r_c − r_r), so σ(difference of logits) is the probability it gives to the chosen answer
being the one that people prefer. The steps are odds that can be said aloud: 9 of 10, 7 of 10, 6 of 10; below, it is hardly
better than tossing a coin, which the paper's annotators called "negligibly better or unsure"."""


@dataclass(frozen=True, slots=True)
class Pick:
    """An answer that is to be learned, or listed."""

    prompt: AnsweredPrompt
    answer: Answer


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt; `chosen` ranks above `rejected`, their texts and their logit(R_c) differ."""

    prompt: AnsweredPrompt
    chosen: Answer
    rejected: Answer

    @property
    def is_decided_by_gate(self) -> bool:
        """Whether `chosen` ranks higher because it alone is not gated, whatever R_c says (combiner `safe_first`)."""
        is_gated = self.chosen.reward.is_gated, self.rejected.reward.is_gated
        return self.prompt.lead.combiner == "safe_first" and is_gated == (False, True)

    @property
    def margin(self) -> float:
        """How much better `chosen` is, in [0, 1]: the difference in R_c, or in R_s where the gate decided."""
        chosen, rejected = self.chosen.reward, self.rejected.reward
        if self.is_decided_by_gate:
            return chosen.safety - rejected.safety
        return chosen.combined - rejected.combined

    @property
    def probability(self) -> float:
        """σ of the same difference in logits, in [0.5, 1]: how surely `chosen` is the better one."""
        chosen, rejected = self.chosen.reward, self.rejected.reward
        if self.is_decided_by_gate:
            return sigmoid(chosen.safety_logit - rejected.safety_logit)
        return sigmoid(chosen.combined_logit - rejected.combined_logit)

    @property
    def rating(self) -> Rating:
        """The step of the four-point scale."""
        return next(rating for rating in RATINGS if self.probability >= rating.least)


def picks(prompt: AnsweredPrompt, options: ExportOptions) -> list[Pick]:
    """The best answers that pass, `top_k` at most, best first."""
    learnable = (answer for answer in prompt.answers if _is_learnable(answer, options))
    return [Pick(prompt, answer) for answer, _ in zip(learnable, range(options.top_k), strict=False)]


def pair(prompt: AnsweredPrompt, options: ExportOptions) -> Pair | None:
    """The best answer that passes against one that ranks below it; None if there are no two such."""
    chosen = next((answer for answer in prompt.answers if _is_learnable(answer, options)), None)
    if chosen is None:
        return None
    worse = [
        answer
        for answer in prompt.answers[chosen.rank + 1 :]
        if _fits(answer, options)
        and answer.text != chosen.text
        and answer.reward.combined_logit != chosen.reward.combined_logit
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
    if options.finished_only and answer.scored.finish_reason == "length":
        return False
    return options.max_tokens is None or answer.scored.tokens <= options.max_tokens


def _is_learnable(answer: Answer, options: ExportOptions) -> bool:
    if options.safe_only and answer.reward.is_gated:
        return False
    if options.min_reward is not None and answer.reward.combined < options.min_reward:
        return False
    return _fits(answer, options)


class Unseen:
    """Whether a prompt with these answers has not been asked about before; 16 bytes of hash are kept of each."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, prompt: AnsweredPrompt, *texts: str) -> bool:
        """Ask, and remember."""
        content = orjson.dumps([[(message.role, message.content) for message in prompt.messages], texts])
        digest = hashlib.blake2b(content, digest_size=16).digest()
        is_new = digest not in self._seen
        self._seen.add(digest)
        return is_new
