"""The protocol of a chat template: which dialogs it accepts, and how it renders them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, Protocol

from winnow.models.errors import DialogError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Dialog, Message, Prompt

TagRule = Literal["refuse", "neutralise"]
"""The rule for a tag of the format in a user's or system message: refuse the dialog, or make the tag text."""


def messages_of(dialog: Dialog) -> Iterator[Message]:
    """Yield the messages of `dialog`.

    Raises:
        DialogError: one is no message.
    """
    for index, item in enumerate(dialog):
        if isinstance(item, Message):
            yield item
        elif isinstance(item, Mapping) and {"role", "content"} <= item.keys():
            yield Message(item["role"], item["content"])
        else:
            raise DialogError(index, "is not a message with a role and a content")


def merged(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return `messages` with those in a row that have one role as one message, with a blank line between their texts.

    A text that is blank is left out, unless all are.
    """
    runs = [list(run) for _, run in groupby(messages, key=lambda message: message.role)]
    return tuple(run[0] if len(run) == 1 else Message(run[0].role, _joined(run)) for run in runs)


def _joined(messages: Iterable[Message]) -> str:
    texts = (message.content.strip("\n") for message in messages)
    return "\n\n".join(text for text in texts if text.strip())


class ChatTemplate(Protocol):
    """One chat format; stateless, so that dialogs can be checked before any tokenizer is loaded."""

    @property
    def name(self) -> str:
        """The template's name, in manifests and reports."""
        ...

    @property
    def digest(self) -> str | None:
        """The SHA-256 of a template that a checkpoint or a file brings; None for one of Winnow's own."""
        ...

    @property
    def jinja(self) -> str:
        """The first of `jinja_forms()`."""
        ...

    def jinja_forms(self, control_tokens: Sequence[str] = ()) -> Sequence[str]:
        """Return the same format as Jinja chat templates for Hugging Face tokenizers, for exports; `exactness` chooses.

        Rendered text is tokenised whole, and tokenizers differ in what they do at a control token's edges. So one
        template need not be right for all tokenizers of one vocabulary. `control_tokens` are names of control tokens
        that a message must not make, besides BOS, EOS, UNK and PAD.
        """
        ...

    @property
    def merge_turns(self) -> bool:
        """Whether messages of one role in a row are one turn; else they are refused, but for leading system ones."""
        ...

    def validate(self, dialog: Dialog) -> tuple[Message, ...]:
        """Return the messages as they are rendered: leading system messages are one, an assistant's tags neutralised.

        Raises:
            DialogError: the template cannot render them; names the message and the reason.
        """
        ...

    def with_tags(self, rule: TagRule) -> ChatTemplate:
        """Return the template with another rule for tags in users' and system messages; the default is to refuse."""
        ...

    def with_merging(self, merge_turns: bool) -> ChatTemplate:
        """Return the template with another `merge_turns`; the default is to refuse."""
        ...

    def reserved_tag(self, text: str) -> str | None:
        """Return a tag of the format that `text` contains, or None."""
        ...

    def neutralise(self, text: str) -> str:
        """Return `text` with each tag of the format spelled differently, so that it is text and no tag."""
        ...

    def render(self, dialog: Dialog, tokenizer: Tokenizer, *, is_safety: bool = False) -> Prompt:
        """Return the prompt that a policy continues with the next assistant message, tagged with `is_safety`.

        Raises:
            DialogError: see `validate`.
        """
        ...
