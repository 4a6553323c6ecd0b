"""The text that a reward model reads by its card: the whole conversation, rendered by its template, tokenised as one.

Covers templates in Jinja, the tokenizer's own or the card's. A model that shares the policy's tokenizer and Llama 2's
template reads the policy's ids instead; see `winnow.models.engines.base.RewardInput`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from winnow.models.cards import Card
from winnow.models.cards.card import Overflow, System
from winnow.models.chat_templates.sandbox import Refused, render
from winnow.models.control_tokens import ControlTokens
from winnow.models.engines.base import CACHED_PROMPTS
from winnow.models.engines.heads import Head
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
        if not tokenizer.is_fast:
            raise CheckpointError(f"reward model {card.name}: its tokenizer is not a fast one; it needs tokenizer.json")
        self._card = card
        self._pad_id = pad_id
        self._controls = ControlTokens(tokenizer.backend_tokenizer)
        self._names = dict(tokenizer.special_tokens_map)
        self._vocabulary: Mapping[str, int] = tokenizer.get_vocab()
        self._template = _template(card, tokenizer)
        self._shielded = lru_cache(CACHED_PROMPTS)(self._shield)
        self._bos_id: int | None = tokenizer.bos_token_id
        self._end = self.tokens(card.end or ())
        self._system: System = "keep"
        self._system = card.system or self._fitting_system()
        adds_bos = self._bos_id is not None and tokenizer("a")["input_ids"][:1] == [self._bos_id]
        opening = self._require_template()
        self._bos = adds_bos or opening[:1] == [self._bos_id] if card.bos is None else card.bos
        if self._end and tuple(opening[-len(self._end) :]) == self._end:  # the template itself ends in them
            self._end = ()
        if self._bos and self._bos_id is None:
            raise CheckpointError(f"reward model {card.name}: the card asks for BOS, but its tokenizer has none")

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Return the ids of the conversation and the answer, up to the one that the score is read at.

        Raises:
            CandidateFailed: the template does not render this conversation.
        """
        return self._ids(conversation(prompt), answer)

    def shortened(self, prompt: Prompt, answer: str, context: int) -> list[int] | None:
        """Return the ids without as many of the oldest turns as have to go for `context` tokens.

        None if the card refuses that, or the last turn and the answer alone are too long.
        """
        rests = shorter_conversations(conversation(prompt), self._card.overflow)
        return first_fitting((self._ids(rest, answer) for rest in rests), context)

    def prompt_ids(self, prompt: Prompt, context: int) -> list[int]:
        """Return at most `context` ids of the conversation without an answer; see `PromptReader`."""
        messages = conversation(prompt)
        choices = chain([messages], shorter_conversations(messages, self._card.overflow))
        if (ids := first_fitting(map(self._ids, choices), context)) is None:
            raise CandidateFailed(f"the prompt does not fit the {self.name} model's context of {context} tokens")
        return ids

    def reread(self, prompt: Prompt) -> int:
        """Return the length of the conversation: merges may cross the border to the answer."""
        return sum(len(message.content) for message in conversation(prompt))

    @property
    def name(self) -> str:
        """The card's name."""
        return self._card.name

    def tokens(self, names: Sequence[int | str]) -> tuple[int, ...]:
        """Return the ids of tokens that the card names.

        Raises:
            CheckpointError: the vocabulary has no such token.
        """
        ids = set(self._vocabulary.values())
        for name in names:
            if name not in (ids if isinstance(name, int) else self._vocabulary):
                raise CheckpointError(
                    f"reward model {self.name}: its vocabulary has no token {name!r}; name tokens as "
                    "tokenizer.json does, or by id"
                )
        return tuple(name if isinstance(name, int) else self._vocabulary[name] for name in names)

    def _ids(self, messages: Sequence[Message], answer: str | None = None) -> list[int]:
        ids = self._controls.encode(self._rendered(messages, answer))
        if (bos := self._bos_id) is not None:
            start = next((place for place, token in enumerate(ids) if token != bos), len(ids))
            ids = [*([bos] if self._bos else []), *ids[start:]]
        ids += self._end
        while self._card.read_at == "before_pad" and ids and ids[-1] == self._pad_id:
            ids.pop()
        return ids

    def _rendered(self, messages: Sequence[Message], answer: str | None) -> str:
        """Return the text of a conversation, in which names of control tokens in messages are hidden."""
        given = list(self._shielded(tuple(messages)))
        if answer is not None:
            given += self._shield((Message("assistant", answer),))
        try:
            return render(self._template, given, self._names, to_answer=False)
        except Refused as reason:
            raise CandidateFailed(f"the template of reward model {self.name} does not render this: {reason}") from None

    def _shield(self, messages: Sequence[Message]) -> tuple[dict[str, str], ...]:
        return tuple(
            {
                "role": message.role,
                "content": self._controls.shielded(message.content, is_answer=message.role == "assistant"),
            }
            for message in with_system(messages, self._system)
        )

    def _fitting_system(self) -> System:
        """Return "keep" if the template renders a system message, else "merge"."""
        try:
            text = self._rendered((_SYSTEM, _PROBE[0]), _PROBE[1].content)
        except CandidateFailed:
            return "merge"
        return "keep" if _SYSTEM.content in text else "merge"

    def _require_template(self) -> list[int]:
        """Return the ids of a rendered conversation, as the template alone has them.

        Raises:
            CheckpointError: the template does not render one, or leaves out its answer.
        """
        try:
            texts = [self._rendered(_PROBE[:1], answer) for answer in (_PROBE[1].content, "Never.")]
        except CandidateFailed as reason:
            raise CheckpointError(f"{reason}; it must render a question and its answer: write a card for it") from None
        if texts[0] == texts[1]:
            raise CheckpointError(
                f"the template of reward model {self.name} leaves out the answer, so that all would score the same; "
                "write a card with another template"
            )
        return self._controls.encode(texts[0])


def _template(card: Card, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja template of the card, or the tokenizer's own; of several the one named default.

    Raises:
        CheckpointError: there is none.
    """
    own: Any = tokenizer.chat_template
    template = own if card.template in (None, "tokenizer") else card.template
    if isinstance(template, Mapping):
        template = template.get("default")
    if not template:
        raise CheckpointError(
            f"reward model {card.name}: its tokenizer has no chat template; write a card with a template"
        )
    return str(template)


def resolved(head: Head, card: Card, reader: CardInput) -> Head:
    """Return the head with the ids of the tokens that the card names.

    Raises:
        CheckpointError: the vocabulary has no such token, or no conversation has what the head looks for.
    """
    found = head.resolved(card, reader.tokens)
    try:
        found.shared_ids(reader.token_ids(Prompt((), _PROBE[:1]), _PROBE[1].content))
    except CandidateFailed as reason:
        raise CheckpointError(f"reward model {reader.name}: {reason}; change the card's gate or its template") from None
    return found


def conversation(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt's messages; a raw text is one message of the user's."""
    return (Message("user", prompt.raw_text),) if prompt.is_raw else prompt.messages


def with_system(messages: Sequence[Message], rule: System) -> Sequence[Message]:
    """Return the messages with the system message as `rule` says."""
    if rule == "keep" or not messages or messages[0].role != "system":
        return messages
    system, *rest = messages
    if rule == "drop" or not rest:
        return rest
    return [Message(rest[0].role, f"{system.content}\n\n{rest[0].content}"), *rest[1:]]


def shorter_conversations(messages: Sequence[Message], overflow: Overflow) -> Iterator[tuple[Message, ...]]:
    """Yield the messages without their oldest turn, without the two oldest and so on, where the card drops turns.

    A turn begins with a message of the user's; a system message and the last turn stay.
    """
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    for start in users[1:] if overflow == "drop_oldest_turns" else ():
        yield (*messages[: users[0]], *messages[start:])


def first_fitting(encoded: Iterable[list[int]], context: int) -> list[int] | None:
    """Return the first ids that are at most `context`; None if there are none."""
    return next((ids for ids in encoded if len(ids) <= context), None)
