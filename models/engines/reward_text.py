"""What a reward model reads by its card: the whole conversation, rendered by its template and tokenised as one text.

Covers templates in Jinja, the tokenizer's own or the card's. A model that shares the policy's tokenizer and Llama 2's
template reads the policy's ids instead; see `winnow.models.engines.base.RewardInput`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from winnow.models.cards import Card
from winnow.models.cards.card import System
from winnow.models.engines.heads import Head
from winnow.models.engines.plain_text import TextTokenizer
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = (Message("user", "Hello."), Message("assistant", "Hi there!"))
_SYSTEM = Message("system", "Answer politely.")


class CardInput:
    """Renders a conversation as a card says, into the ids that end where the score is read.

    Raises:
        CheckpointError: the card does not fit the tokenizer, or there is no template.
    """

    def __init__(self, card: Card, tokenizer: PreTrainedTokenizerBase, pad_id: int | None = None) -> None:
        try:
            self._text = TextTokenizer(tokenizer)
        except ValueError as error:
            raise CheckpointError(f"reward model {card.name}: {error}") from None
        self._card = card
        self._pad_id = pad_id
        self._template = None if card.template in (None, "tokenizer") else card.template
        if not (self._template or tokenizer.chat_template):
            raise CheckpointError(
                f"reward model {card.name}: its tokenizer has no chat template; write a card with a template"
            )
        self._end = token_ids_of(card.end or (), self._text, card.name)
        self._system: System = "keep"
        self._system = card.system or self._fitting_system()
        self._bos = self._begins_with_bos() if card.bos is None else card.bos
        if self._bos and self._text.bos_id is None:
            raise CheckpointError(f"reward model {card.name}: the card asks for BOS, but its tokenizer has none")

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Return the ids of the conversation and the answer, up to the one that the score is read at.

        Raises:
            CandidateFailed: the template does not render this conversation.
        """
        return self._ids(_conversation(prompt), answer)

    def shortened(self, prompt: Prompt, answer: str, context: int) -> list[int] | None:
        """Return the ids without as many of the oldest turns as have to go for `context` tokens.

        None if the card refuses that, or the last turn and the answer alone are too long.
        """
        messages = _conversation(prompt)
        while self._card.overflow == "drop_oldest_turns" and (rest := _without_oldest_turn(messages)):
            messages = rest
            if len(ids := self._ids(messages, answer)) <= context:
                return ids
        return None

    def reread(self, prompt: Prompt) -> int:
        """Return the length of the conversation: merges may cross the border to the answer."""
        return sum(len(message.content) for message in _conversation(prompt))

    @property
    def name(self) -> str:
        """The card's name."""
        return self._card.name

    def tokens(self, names: Sequence[int | str]) -> tuple[int, ...]:
        """Return the ids of tokens that the card names.

        Raises:
            CheckpointError: the vocabulary has no such token.
        """
        return token_ids_of(names, self._text, self._card.name)

    def _ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        text, mark = self._rendered(messages, answer)
        ids = self._text.encode_marked(text, mark)
        if (bos := self._text.bos_id) is not None:
            start = next((place for place, token in enumerate(ids) if token != bos), len(ids))
            ids = [*([bos] if self._bos else []), *ids[start:]]
        ids += self._end
        while self._card.read_at == "before_pad" and ids and ids[-1] == self._pad_id:
            ids.pop()
        return ids

    def _rendered(self, messages: Sequence[Message], answer: str) -> tuple[str, str]:
        """Return the text of a conversation, and the mark in it of what only looks like control tokens."""
        turns = [*_with_system(messages, self._system), Message("assistant", answer)]
        contents, mark = self._text.guard(turn.content for turn in turns)
        guarded = [Message(turn.role, text).as_dict() for turn, text in zip(turns, contents, strict=True)]
        try:
            return self._render(guarded), mark
        except _template_errors() as error:
            raise CandidateFailed(f"the template of reward model {self.name} does not render this: {error}") from None

    def _render(self, messages: list[dict[str, str]]) -> str:
        text: Any = self._text.tokenizer.apply_chat_template(messages, chat_template=self._template, tokenize=False)
        return str(text)

    def _fitting_system(self) -> System:
        """Return "keep" if the template renders a system message, else "merge"."""
        try:
            text, _ = self._rendered((_SYSTEM, _PROBE[0]), _PROBE[1].content)
        except CandidateFailed:
            return "merge"
        return "keep" if _SYSTEM.content in text else "merge"

    def _begins_with_bos(self) -> bool:
        """Whether the template writes a BOS, or the tokenizer adds one."""
        text, mark = self._rendered(_PROBE[:1], _PROBE[1].content)
        writes = self._text.encode_marked(text, mark)[:1] == [self._text.bos_id]
        return self._text.bos_id is not None and (writes or self._text.adds_bos)


def resolved(head: Head, card: Card, reader: CardInput) -> Head:
    """Return the head with the rows of the card's labels.

    Raises:
        CheckpointError: the vocabulary has no such token.
    """
    return replace(head, rows=reader.tokens(card.labels)) if card.labels else head


def token_ids_of(names: Sequence[int | str], text: TextTokenizer, card: str) -> tuple[int, ...]:
    """Return the ids of tokens that a card gives by id or by the vocabulary's name.

    Raises:
        CheckpointError: the vocabulary has no such token.
    """
    ids = set(text.vocabulary.values())
    for name in names:
        if name not in (ids if isinstance(name, int) else text.vocabulary):
            raise CheckpointError(
                f"reward model {card}: its vocabulary has no token {name!r}; name tokens as "
                "tokenizer.json does, or by id"
            )
    return tuple(name if isinstance(name, int) else text.vocabulary[name] for name in names)


def _conversation(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt's messages; a raw text is one message of the user's."""
    return (Message("user", prompt.raw_text),) if prompt.is_raw else prompt.messages


def _with_system(messages: Sequence[Message], rule: System) -> Sequence[Message]:
    if rule == "keep" or not messages or messages[0].role != "system":
        return messages
    system, *rest = messages
    if rule == "drop" or not rest:
        return rest
    return [Message(rest[0].role, f"{system.content}\n\n{rest[0].content}"), *rest[1:]]


def _without_oldest_turn(messages: Sequence[Message]) -> tuple[Message, ...] | None:
    """Return the messages without the user's first and what follows up to the user's next; None if there is one."""
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    return (*messages[: users[0]], *messages[users[1] :]) if len(users) > 1 else None


def _template_errors() -> tuple[type[Exception], ...]:
    """Return what a template raises on a conversation that it does not render."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, IndexError, KeyError, AttributeError)
