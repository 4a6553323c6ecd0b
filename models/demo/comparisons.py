"""The reward models' training data: two answers to a prompt, of which the world's judge prefers one.

Written comparisons are of the world's samplers. Failures are of the policy's own answers: the bad ones that the
current reward model likes best, as the paper's annotators met them in its weekly batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any

from winnow.models.demo.candidates import Candidates
from winnow.models.demo.corpus import encode
from winnow.models.demo.world import FAULTS, DemoPrompt, Fault, Kind, prompts, sample_answer, sample_twins
from winnow.models.tokenizer import Tokenizer
from winnow.models.training.examples import Example

LEAST, MOST = 2, 12
"""Bad answers of a prompt that are compared: the highest-scored ones."""
LEAD = 1.0
"""A bad answer is a failure if it scores at most this far below the mean of the good ones."""
RATINGS = {1: "slightly better", 2: "better", 3: "significantly better"}
"""The paper's ratings by the gap of two grades."""
_MIXES: dict[Kind, dict[Fault, int]] = {
    "helpfulness": {
        "none": 44, "wrong": 14, "style": 8, "refusal": 3, "insult": 4, "unsafe": 3, "off_topic": 5, "ignorance": 4,
        "entity": 8, "truncated": 5, "empty": 2,
    },
    "safety": {
        "none": 36, "wrong": 10, "style": 2, "refusal": 4, "insult": 18, "unsafe": 20, "off_topic": 4, "ignorance": 2,
        "truncated": 2, "empty": 2,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers to `prompt`, of which `chosen` has the higher grade of `kind`."""

    prompt: DemoPrompt
    chosen: str
    rejected: str
    kind: Kind

    @property
    def gap(self) -> int:
        """The difference of the grades, 1 to 3."""
        return self.prompt.grade(self.chosen, self.kind) - self.prompt.grade(self.rejected, self.kind)

    def is_good(self, answer: str) -> bool:
        """Whether an answer is safe, or for the helpfulness model correct."""
        return self.prompt.is_good(answer, self.kind)

    def example(self, tokenizer: Tokenizer) -> Example:
        """Return it as a reward model is trained on it, with the paper's small margin: a third for each grade."""
        chosen, rejected = (encode(tokenizer, self.prompt.messages, text).ids for text in (self.chosen, self.rejected))
        return Example(chosen, rejected, self.gap / 3, self.is_good(self.chosen), self.is_good(self.rejected))

    def row(self) -> dict[str, Any]:
        """Return it as a row that `winnow rm train` reads."""
        label = "safe" if self.kind == "safety" else "helpful"
        return {
            "prompt": [{"role": message.role, "content": message.content} for message in self.prompt.messages],
            "chosen": self.chosen,
            "rejected": self.rejected,
            "rating": RATINGS[self.gap],
            f"chosen_{label}": self.is_good(self.chosen),
            f"rejected_{label}": self.is_good(self.rejected),
        }


def compare(prompt: DemoPrompt, first: str, second: str, kind: Kind) -> Comparison | None:
    """Return the two answers with the better one first; None if the judge prefers neither."""
    gap = prompt.grade(first, kind) - prompt.grade(second, kind)
    if not gap:
        return None
    return Comparison(prompt, first, second, kind) if gap > 0 else Comparison(prompt, second, first, kind)


def written(kind: Kind, seed: int) -> Iterator[Comparison]:
    """Yield comparisons of written answers to training prompts, without end."""
    rng, mix = Random(f"written-{kind}-{seed}"), _MIXES[kind]
    faults, shares = list(mix), list(mix.values())
    for prompt in prompts(seed, held_out=False):
        first, second = (sample_answer(prompt, fault, rng) for fault in rng.choices(faults, shares, k=2))
        if found := compare(prompt, first, second, kind):
            yield found


def twins(weights: Mapping[str, float], seed: int) -> Iterator[Comparison]:
    """Yield helpfulness comparisons of answers that hardly differ, without end.

    `weights` are those of the prompts' categories, at most 1 each.
    """
    rng = Random(f"twins-{seed}")
    for prompt in prompts(seed, held_out=False):
        if rng.random() < weights.get(prompt.category, 0.0) and (
            found := compare(prompt, *sample_twins(prompt, rng), "helpfulness")
        ):
            yield found


def failures(candidates: Candidates, logits: Mapping[str, float], kind: Kind, rng: Random) -> list[Comparison]:
    """Return comparisons with the bad answers that a reward model scores highest, hardest first.

    All that score like good answers count, up to `MOST`, and at least `LEAST`. An answer of the best grade stands
    against each of them; if there is none, or no bad one, a written answer takes its place. `logits` are the model's,
    by text.
    """
    prompt = candidates.prompt
    ordered = sorted(candidates.texts, key=lambda text: -logits[text])
    best = [text for text in ordered if prompt.grade(text, kind) == 3]
    bad = [text for text in ordered if prompt.grade(text, kind) < 3]
    bar = fmean(logits[text] for text in best) - LEAD if best else math.inf
    bad = [text for place, text in enumerate(bad[:MOST]) if place < LEAST or logits[text] > bar]
    best = best or [sample_answer(prompt, "none", rng)]
    bad = bad or [sample_answer(prompt, rng.choice(FAULTS[1:]), rng)]
    found = [compare(prompt, rng.choice(best), text, kind) for text in bad]
    # Of two bad answers one may be worse: right in another style, or unsafe.
    found.append(compare(prompt, bad[0], bad[-1], kind))
    return [comparison for comparison in found if comparison]
