"""Prompts and answers of known lengths: words that the tokenizer encodes as it decoded them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow.models.engines.checkpoint import describe
from winnow.models.engines.dummy_checkpoints import plain_words
from winnow.models.errors import CandidateFailed
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Prompt
from winnow.server.settings import Settings

FORCED = 100.0
"""Bias of the words' logits, beside which those of random weights are nothing."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a tokenizer, as ids that all three models know."""

    tokenizer: Tokenizer
    ids: tuple[int, ...]

    @classmethod
    def of(cls, settings: Settings, tokenizer: Tokenizer) -> Words:
        """Return the words of the policy's tokenizer."""
        known = min(
            describe(checkpoint, "policy", name, "float32").shape.vocabulary
            for name, checkpoint in settings.checkpoints.items()
        )
        return cls(tokenizer, tuple(token for token in plain_words(Path(settings.policy.checkpoint)) if token < known))

    def prompt(self, tokens: int, seed: int) -> Prompt:
        """Return a prompt of `tokens` tokens, which shares no beginning with one of another seed."""
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return self.tokenizer.raw_prompt([*start, *self._chosen(tokens - len(start), seed)])

    def answer(self, tokens: int, seed: int) -> str:
        """Return an answer of `tokens` tokens to such a prompt."""
        return f" {self.tokenizer.decode(self._chosen(tokens, seed)).strip()}"

    def sampling(self, tokens: int) -> Sampling:
        """Return the parameters of answers that have exactly `tokens` tokens."""
        return Sampling(max_tokens=tokens, ignore_eos=True, logit_bias=dict.fromkeys(self.ids, FORCED))

    def _chosen(self, count: int, seed: int) -> list[int]:
        return random.Random(seed).choices(self.ids, k=count)


def require_lengths(lengths: Sequence[int], wanted: int) -> None:
    """Check that answers have the length that they were forced to.

    Raises:
        CandidateFailed: one has another, so that no time can be held against its roofline.
    """
    if any(length != wanted for length in lengths):
        raise CandidateFailed(f"answers that were forced to {wanted} tokens have {sorted(set(lengths))}")
