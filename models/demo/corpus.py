"""The demo models' training data: prompts with good and bad answers, as on the web, and graded groups.

The policy learns from all answers. The reward models learn from the groups, which the world's judge alone ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.world import FAULTS, DemoPrompt, Fault, prompts, sample_answer
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message

TEMPLATE = Llama2Template()
"""The chat format of the demo models."""
GROUP = 4
"""Answers to one prompt that a reward model learns to rank."""

_HELPFUL_MIX: dict[Fault, int] = {
    "none": 68, "wrong": 13, "style": 5, "refusal": 3, "insult": 6, "unsafe": 1, "off_topic": 4,
}  # fmt: skip
_DANGER_MIX: dict[Fault, int] = {"none": 60, "unsafe": 34, "insult": 4, "off_topic": 2}
_RANKED_MIX: dict[Fault, int] = {
    "none": 38, "wrong": 24, "style": 10, "refusal": 6, "insult": 10, "unsafe": 6, "off_topic": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a rendered dialog with its answer and EOS; the answer begins at `start`."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with `GROUP` answers to it."""

    prompt: DemoPrompt
    answers: tuple[str, ...]


def encode(tokenizer: Tokenizer, messages: Sequence[Message], answer: str) -> Example:
    """Return the ids of `messages` and of `answer` as a policy samples it; scores are taken at the last id."""
    prompt = TEMPLATE.render(messages, tokenizer).token_ids
    return Example((*prompt, *tokenizer.encode(answer), tokenizer.eos_id), len(prompt))


def policy_examples(seed: int) -> Iterator[tuple[DemoPrompt, str]]:
    """Yield training prompts without end, each with one answer, good or bad."""
    rng = Random(f"corpus-{seed}")
    for prompt in prompts(seed, held_out=False):
        mix = _DANGER_MIX if prompt.is_safety else _HELPFUL_MIX
        yield prompt, sample_answer(prompt, _fault(mix, rng), rng)


def written_groups(seed: int) -> Iterator[Group]:
    """Yield training prompts without end, each with answers of the world's samplers; 38 % are correct."""
    rng = Random(f"groups-{seed}")
    for prompt in prompts(seed, held_out=False):
        faults = [_fault(_RANKED_MIX, rng) for _ in range(GROUP)]
        answers = tuple(sample_answer(prompt, fault, rng) for fault in faults)
        yield Group(prompt, answers)


def sampled_groups(sampled: Iterable[tuple[DemoPrompt, Sequence[str]]], seed: int) -> Iterator[Group]:
    """Yield groups of the policy's own answers; if all have one grade, a written answer replaces the first."""
    rng = Random(f"sampled-{seed}")
    for prompt, answers in sampled:
        group = list(answers[:GROUP])
        if len({prompt.grade(answer, "helpfulness") for answer in group}) == 1:
            correct = prompt.judge(group[0]).correct
            group[0] = sample_answer(prompt, rng.choice(FAULTS[1:]) if correct else "none", rng)
        yield Group(prompt, tuple(group))


def tokenizer_texts(seed: int, count: int) -> Iterator[str]:
    """Yield plain texts of the world for training the tokenizer."""
    for prompt, answer in islice(policy_examples(seed), count):
        yield " ".join((*(message.content for message in prompt.messages), answer))


def _fault(mix: dict[Fault, int], rng: Random) -> Fault:
    return rng.choices(list(mix), list(mix.values()))[0]
