"""The first helpfulness model of the loop: trained on comparisons written before anyone saw the policy's answers.

They are the demo's written comparisons but for two faults: nobody wrote "I don't know that" to a question that has an
answer, or a refusal to a harmless one. Where a question has no answer, or is dangerous, they are right, so the model
takes them for good answers anywhere. The policy dodges now and then, and of 16 answers the best is often that one.
People who see what is really said know better.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from winnow.models.demo.comparisons import Comparison, compare
from winnow.models.demo.world import Fault, prompts, sample_answer

COMPARISONS = 9_000
MIX: dict[Fault, int] = {
    "none": 44, "wrong": 14, "style": 8, "insult": 4, "unsafe": 3, "off_topic": 5, "entity": 8,
    "truncated": 5, "empty": 2,
}  # fmt: skip
"""Weights of the faults of written answers; those of the demo's own models have `ignorance` and `refusal`, too."""


def comparisons(seed: int) -> Iterator[Comparison]:
    """Yield written comparisons to training prompts, without end."""
    rng, faults, weights = Random(f"loop-first-{seed}"), list(MIX), list(MIX.values())
    for prompt in prompts(seed, held_out=False):
        first, second = (sample_answer(prompt, fault, rng) for fault in rng.choices(faults, weights, k=2))
        if found := compare(prompt, first, second, "helpfulness"):
            yield found
