"""What a client of a bare server does before it can ask: render the dialog, as ids for the policy and as text for the reward models.

A baseline is given the prompt's token ids, which spares its server the chat template and the tokenizer: that favours the baseline.
The text is what a user would hand to `/classify`; with `add_special_tokens` off it is tokenised to the very ids that Winnow's models read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from winnow.loadtests.types import Ask
from winnow.models import demo
from winnow.models.chat_templates.llama2 import (
    BEGIN_INSTRUCTION,
    BEGIN_SYSTEM,
    END_INSTRUCTION,
    END_SYSTEM,
    Llama2Template,
)
from winnow.models.demo.world import held_out_prompts
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.safety_classifier import SafetyClassifier

MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as ids and as text with its control tokens spelt out, and whether it asks for something dangerous."""

    ids: tuple[int, ...]
    text: str
    is_safety: bool


class Renderer:
    """Renders asks for the demo models."""

    def __init__(self) -> None:
        self.template = Llama2Template(load_tokenizer(str(demo.weights("policy")), "policy"))
        self._tagger = SafetyClassifier()

    def __call__(self, ask: Ask) -> Rendered:
        """Render one ask's dialog."""
        dialog = list(ask.messages)
        is_safety = self._tagger(dialog)
        return Rendered(self.template.render(dialog).token_ids, prompt_text(dialog), is_safety)


def prompt_text(dialog: Iterable[Mapping[str, str]]) -> str:
    """The Llama-2 prompt as text, `<s>` and `</s>` included."""
    turns = [dict(message) for message in dialog]
    if turns[0]["role"] == "system":
        system = turns.pop(0)["content"]
        turns[0]["content"] = f"{BEGIN_SYSTEM}{system}{END_SYSTEM}{turns[0]['content']}"
    parts = []
    for turn in turns:
        content = turn["content"].strip()
        is_user = turn["role"] == "user"
        parts.append(f"<s>{BEGIN_INSTRUCTION} {content} {END_INSTRUCTION}" if is_user else f" {content} </s>")
    return "".join(parts)


def scored_text(prompt: str, answer: str) -> str:
    """What a reward model reads: the prompt, the answer behind a space, and EOS, at which the score is taken."""
    return f"{prompt} {answer}</s>" if answer else f"{prompt}</s>"


def asks(count: int, candidates: int, *, seed: int, eos_id: int | None) -> list[Ask]:
    """`count` seeded asks about held-out prompts. With `eos_id` every answer has `MAX_TOKENS` tokens, because EOS is banned."""
    options: dict[str, Any] = {"temperature": 1.0}
    if eos_id is not None:
        options["logit_bias"] = {str(eos_id): -100}
    return [
        Ask(
            number=number,
            messages=tuple({"role": message.role, "content": message.content} for message in prompt.messages),
            candidates=candidates,
            max_tokens=MAX_TOKENS,
            seed=seed * 1_000_000 + number * 1000,
            options=options,
        )
        for number, prompt in enumerate(held_out_prompts(count, seed))
    ]
