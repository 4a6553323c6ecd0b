"""The ids of an answer that fit a reward model's context, tokenised off the event loop if that takes long."""

from __future__ import annotations

import asyncio

from winnow.models.engines.base import AnswerReader
from winnow.models.errors import CandidateFailed
from winnow.models.tokenizer import LONG_TEXT
from winnow.models.types import Prompt

LONG_REREAD = 2000
"""Characters of a prompt that is tokenised anew with each answer, above which a thread does it: 0.7 ms there."""


async def fitting_ids(reader: AnswerReader, prompt: Prompt, answer: str, *, context: int, name: str) -> list[int]:
    """Return the ids of a prompt and an answer, or of what the model `name` is given of them, `context` at most.

    Raises:
        CandidateFailed: they do not fit.
    """
    if len(answer) > LONG_TEXT or reader.reread(prompt) > LONG_REREAD:
        return await asyncio.to_thread(_fitting_ids, reader, prompt, answer, context, name)
    return _fitting_ids(reader, prompt, answer, context, name)


def _fitting_ids(reader: AnswerReader, prompt: Prompt, answer: str, context: int, name: str) -> list[int]:
    ids = reader.token_ids(prompt, answer)
    if len(ids) <= context:
        return ids
    if shortened := reader.shortened(prompt, answer, context):
        return shortened
    raise CandidateFailed(f"the answer does not fit the {name} model's context of {context} tokens")
