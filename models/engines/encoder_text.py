"""The text that an encoder reads by its card: a question and an answer as a pair of sentences, or the answer alone.

The tokenizer's own special tokens stand around them; what people write never becomes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from winnow.models.cards import Card
from winnow.models.chat_templates.sandbox import NO_NAMES, Refused, render
from winnow.models.control_tokens import ControlTokens
from winnow.models.engines.base import CACHED_PROMPTS
from winnow.models.engines.reward_text import conversation, first_fitting, shorter_conversations, with_system
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BETWEEN_TURNS = "\n\n"
_SAMPLE = (Message("user", "Hello."), Message("assistant", "Hi there!"), Message("user", "Who are you?"))


class EncoderInput:
    """Makes the ids of a conversation and an answer for an encoder; an `AnswerReader`.

    The conversation is one text: as the card's template renders it, or else all its turns, a blank line between two.

    Raises:
        CheckpointError: the tokenizer cannot be used.
    """

    def __init__(self, card: Card, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise CheckpointError(f"reward model {card.name}: its tokenizer is not a fast one; it needs tokenizer.json")
        self._card = card
        self._reads_pair = card.reads != "answer"
        self._controls = ControlTokens(tokenizer.backend_tokenizer)
        self._question_ids = lru_cache(CACHED_PROMPTS)(self._encoded_question)
        self._parts, self._types = _frame(tokenizer, is_pair=self._reads_pair)
        self.has_types = "token_type_ids" in tokenizer.model_input_names and any(map(any, self._types))
        """Whether the model is told which of the two sentences a token is of."""

    @property
    def reads_history(self) -> bool:
        """Whether it reads the turns before the last one, as far as a sample tells."""
        try:
            return self._reads_pair and self._question(_SAMPLE) != self._question(_SAMPLE[-1:])
        except CandidateFailed:
            return True

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Return the ids of the conversation and the answer, or of the answer alone, with the special tokens.

        Raises:
            CandidateFailed: the template does not render this conversation.
        """
        return self._ids(conversation(prompt) if self._reads_pair else (), answer)

    def shortened(self, prompt: Prompt, answer: str, context: int) -> list[int] | None:
        """Return at most `context` ids, without as many of the oldest turns as have to go; see `AnswerReader`."""
        rests = shorter_conversations(conversation(prompt), self._card.overflow)
        return first_fitting((self._ids(rest, answer) for rest in rests), context)

    def reread(self, prompt: Prompt) -> int:
        """Return the length of the conversation, which is tokenised the first time."""
        return sum(len(message.content) for message in conversation(prompt)) if self._reads_pair else 0

    def token_types(self, ids: Sequence[int]) -> list[int]:
        """Return 0 or 1 for each of `token_ids`: the sentence that it is of, as the tokenizer counts."""
        types = list(self._types[0])
        if self._reads_pair:
            # No text holds a special token, so the first one behind the opening ends the first sentence.
            types += [0] * (ids.index(self._parts[1][0], len(types)) - len(types)) + self._types[1]
        last = 1 if self._reads_pair else 0
        return types + [last] * (len(ids) - len(types) - len(self._types[-1])) + self._types[-1]

    def _ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        before, *between, after = self._parts
        question = [*self._question_ids(tuple(messages)), *between[0]] if self._reads_pair else []
        return [*before, *question, *self._controls.encode_text(answer), *after]

    def _encoded_question(self, messages: tuple[Message, ...]) -> list[int]:
        return self._controls.encode_text(self._question(messages))

    def _question(self, messages: Sequence[Message]) -> str:
        given = with_system(messages, self._card.system or "keep")
        if self._card.template is None:
            return _BETWEEN_TURNS.join(message.content for message in given)
        try:
            return render(self._card.template, [message.as_dict() for message in given], NO_NAMES, to_answer=False)
        except Refused as reason:
            raise CandidateFailed(
                f"the template of reward model {self._card.name} does not render this: {reason}"
            ) from None


def _frame(tokenizer: PreTrainedTokenizerBase, *, is_pair: bool) -> tuple[list[list[int]], list[list[int]]]:
    """Return the special tokens before, between and behind the sentences, as lists of ids, and their types."""
    sample = tokenizer("a", "a" if is_pair else None, return_token_type_ids=True)
    sentences = sample.sequence_ids(0)
    ids: list[list[int]] = [[]]
    types: list[list[int]] = [[]]
    for place, sentence in enumerate(sentences):
        if sentence is None:
            ids[-1].append(sample["input_ids"][place])
            types[-1].append(sample["token_type_ids"][place])
        elif place == 0 or sentence != sentences[place - 1]:
            ids.append([])
            types.append([])
    if len(ids) != 2 + is_pair or (is_pair and not ids[1]):
        raise CheckpointError("reward model: its tokenizer puts no special token between two sentences")
    return ids, types
