"""Rendering on the client's side: a dialog as token ids for the policy and as text for the reward models.

A baseline gets the prompt as token ids, which spares its server the chat template and the tokenizer: that
favours the baseline. The text is what a user would send to `/classify`; with `add_special_tokens` off it is
tokenised to the ids that Winnow's reward models read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from winnow.loadtests.benchmarks.winnow_process import as_json
from winnow.loadtests.types import Request
from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.models.demo.world import held_out_prompts
from winnow.models.safety_classifier import PatternClassifier
from winnow.models.tokenizer import Tokenizer

MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as token ids, and as text with its control tokens spelt out.

    `is_safety`: its answers are ranked by safety alone. `answer_prefix` precedes an answer that is not empty,
    `eos` follows it.
    """

    ids: tuple[int, ...]
    text: str
    is_safety: bool
    answer_prefix: str
    eos: str

    def with_answer(self, answer: str) -> str:
        """Return the text that a reward model reads: prompt, answer, and EOS, where the score is taken."""
        return f"{self.text}{self.answer_prefix + answer if answer else ''}{self.eos}"


class Renderer:
    """Renders requests for the demo models."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer  # the driver of its_hub runs without it

        self._template = TEMPLATES["llama2"]
        self._jinja = self._template.jinja
        self._hf_tokenizer = AutoTokenizer.from_pretrained(demo.weights("policy"))
        self._tokenizer = Tokenizer(self._hf_tokenizer)
        self._classifier = PatternClassifier()

    @property
    def eos_id(self) -> int:
        """The id of the policy's EOS."""
        return self._tokenizer.eos_id

    def __call__(self, request: Request) -> Rendered:
        """Render the dialog of one request."""
        dialog = list(request.messages)
        prompt = self._template.render(dialog, self._tokenizer, is_safety=self._classifier.matches(dialog))
        text = self._hf_tokenizer.apply_chat_template(dialog, chat_template=self._jinja, tokenize=False)
        eos = str(self._hf_tokenizer.eos_token)
        return Rendered(prompt.token_ids, str(text), prompt.is_safety, prompt.answer_prefix, eos)


def held_out_requests(count: int, candidates: int, *, seed: int, eos_id: int | None) -> list[Request]:
    """Return `count` seeded requests about held-out prompts.

    With `eos_id` every answer has `MAX_TOKENS` tokens, because EOS is banned.
    """
    options: dict[str, Any] = {"temperature": 1.0}
    if eos_id is not None:
        options["logit_bias"] = {str(eos_id): -100}
    return [
        Request(
            number=number,
            messages=as_json(prompt.messages),
            candidates=candidates,
            max_tokens=MAX_TOKENS,
            seed=seed * 1_000_000 + number * 1000,
            options=options,
        )
        for number, prompt in enumerate(held_out_prompts(count, seed))
    ]
