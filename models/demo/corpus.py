"""What the demo models are trained on: a mixture of good and bad answers, as the web is, and judged groups of answers.

The policy learns from all of it. The reward models learn from groups whose order comes from the world's judge alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.world import FAULTS, DemoPrompt, Fault, prompts, sample_answer
from winnow.models.types import Message

GROUP = 4
"""Answers to one prompt that a reward model ranks among each other."""

_HELPFUL_MIX: dict[Fault, int] = {
    "none": 68, "wrong": 13, "style": 5, "refusal": 3, "insult": 6, "unsafe": 1, "off_topic": 4,
}  # fmt: skip
_DANGER_MIX: dict[Fault, int] = {"none": 60, "unsafe": 34, "insult": 4, "off_topic": 2}
_RANKED_MIX: dict[Fault, int] = {
    "none": 38, "wrong": 24, "style": 10, "refusal": 6, "insult": 10, "unsafe": 6, "off_topic": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a rendered dialog with its answer and EOS; `start` is where the answer begins."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with `GROUP` answers to it."""

    prompt: DemoPrompt
    answers: tuple[str, ...]


def encode(template: Llama2Template, messages: Sequence[Message], answer: str) -> Example:
    """The ids a policy would have produced, and a reward model scores at the last one."""
    prompt = template.render(messages).token_ids
    return Example((*prompt, *template.encode(answer), template.eos_id), len(prompt))


def policy_examples(seed: int) -> Iterator[tuple[DemoPrompt, str]]:
    """An endless stream of training prompts, each with one answer of the web's quality."""
    rng = Random(f"corpus-{seed}")
    for prompt in prompts(seed, held_out=False):
        mix = _DANGER_MIX if prompt.is_safety else _HELPFUL_MIX
        yield prompt, sample_answer(prompt, _fault(mix, rng), rng)


def written_groups(seed: int) -> Iterator[Group]:
    """An endless stream of training prompts with answers from the world's own samplers; the first is often correct."""
    rng = Random(f"groups-{seed}")
    for prompt in prompts(seed, held_out=False):
        faults = [_fault(_RANKED_MIX, rng) for _ in range(GROUP)]
        answers = tuple(sample_answer(prompt, fault, rng) for fault in faults)
        yield Group(prompt, answers)


def sampled_groups(sampled: Iterable[tuple[DemoPrompt, Sequence[str]]], seed: int) -> Iterator[Group]:
    """Groups of the policy's own answers, completed by a written one where all have the same grade."""
    rng = Random(f"sampled-{seed}")
    for prompt, answers in sampled:
        group = list(answers[:GROUP])
        if len({prompt.grade(answer, "helpfulness") for answer in group}) == 1:
            correct = prompt.judge(group[0]).correct
            group[0] = sample_answer(prompt, rng.choice(FAULTS[1:]) if correct else "none", rng)
        yield Group(prompt, tuple(group))


def tokenizer_texts(seed: int, count: int) -> Iterator[str]:
    """Plain texts of the world for training the tokenizer."""
    for prompt, answer in islice(policy_examples(seed), count):
        yield " ".join((*(message.content for message in prompt.messages), answer))


def _fault(mix: dict[Fault, int], rng: Random) -> Fault:
    return rng.choices(list(mix), list(mix.values()))[0]
