"""The demo policy's training data: prompts with good and bad answers, as on the web, and their token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo.world import DemoPrompt, Fault, prompts, sample_answer
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message

TEMPLATE = Llama2Template()
"""The chat format of the demo models."""

_HELPFUL_MIX: dict[Fault, int] = {
    "none": 66, "wrong": 13, "style": 5, "refusal": 3, "insult": 6, "unsafe": 1, "off_topic": 4, "ignorance": 2,
}  # fmt: skip
_DANGER_MIX: dict[Fault, int] = {"none": 60, "unsafe": 34, "insult": 4, "off_topic": 2}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a rendered dialog with its answer and EOS; the answer begins at `start`."""

    ids: tuple[int, ...]
    start: int


def encode(tokenizer: Tokenizer, messages: Sequence[Message], answer: str) -> Encoded:
    """Return the ids of `messages` and of `answer` as a policy samples it; scores are taken at the last id."""
    prompt = TEMPLATE.render(messages, tokenizer).token_ids
    return Encoded((*prompt, *tokenizer.encode(answer), tokenizer.eos_id), len(prompt))


def policy_examples(seed: int) -> Iterator[tuple[DemoPrompt, str]]:
    """Yield training prompts without end, each with one answer, good or bad."""
    rng = Random(f"corpus-{seed}")
    for prompt in prompts(seed, held_out=False):
        mix = _DANGER_MIX if prompt.is_safety else _HELPFUL_MIX
        yield prompt, sample_answer(prompt, _fault(mix, rng), rng)


def tokenizer_texts(seed: int, count: int) -> Iterator[str]:
    """Yield plain texts of the world for training the tokenizer."""
    for prompt, answer in islice(policy_examples(seed), count):
        yield " ".join((*(message.content for message in prompt.messages), answer))


def _fault(mix: dict[Fault, int], rng: Random) -> Fault:
    return rng.choices(list(mix), list(mix.values()))[0]
