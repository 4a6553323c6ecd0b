"""A chat format that a Jinja template writes: the policy's tokenizer brings one, or the operator names a file.

The template decides which roles it knows, in which order, and what it does to white space. Its text is tokenised once,
as a whole, so that ids equal those of transformers' `apply_chat_template`. Names of control tokens in messages stay
text: see `winnow.models.control_tokens`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from winnow.models.chat_templates.base import TagRule, merged, messages_of
from winnow.models.chat_templates.sandbox import NO_NAMES, Refused, render
from winnow.models.errors import DialogError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Dialog, Message, Prompt

ROLES = ("system", "user", "assistant")
EXAMPLE = ({"role": "user", "content": "q"},)
ANSWER = "Example"


@dataclass(frozen=True)
class JinjaTemplate:
    """The chat format that the Jinja template `source` writes; a `ChatTemplate`. `name` is told in manifests."""

    source: str
    name: str = "tokenizer"
    merge_turns: bool = False

    @property
    def jinja(self) -> str:
        """The template itself."""
        return self.source

    @property
    def digest(self) -> str:
        """The SHA-256 of the template."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def jinja_forms(self, control_tokens: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the template itself: it has one form."""
        return (self.source,)

    @cached_property
    def answer_prefix(self) -> str:
        """The white space that the template puts between the opening of an answer and its first character."""
        try:
            opened = render(self.source, EXAMPLE, NO_NAMES, to_answer=True)
            answered = [*EXAMPLE, {"role": "assistant", "content": ANSWER}]
            whole = render(self.source, answered, NO_NAMES, to_answer=False)
        except Refused:
            return ""
        before, found, _ = whole.removeprefix(opened).partition(ANSWER)
        return before if found and whole.startswith(opened) and before.isspace() else ""

    def validate(self, dialog: Dialog) -> tuple[Message, ...]:
        """Return the messages of `dialog`, with those in a row that have one role joined if `merge_turns` is set."""
        messages = tuple(messages_of(dialog))
        _check(messages)
        messages = merged(messages) if self.merge_turns else messages
        self._rendered([message.as_dict() for message in messages], NO_NAMES)
        return messages

    def _rendered(self, messages: Sequence[Mapping[str, str]], names: Mapping[str, object]) -> str:
        try:
            return render(self.source, messages, names, to_answer=True)
        except Refused as reason:
            raise DialogError(None, f"the model's chat template refuses the dialog: {reason}") from None

    def with_tags(self, rule: TagRule) -> JinjaTemplate:
        """Return the template itself: it has no tags that text could spell."""
        return self

    def with_merging(self, merge_turns: bool) -> JinjaTemplate:
        """Return the template with another rule for two messages of one role in a row."""
        return self if merge_turns == self.merge_turns else replace(self, merge_turns=merge_turns)

    def reserved_tag(self, text: str) -> str | None:
        """Return None: no text is a tag."""
        return None

    def neutralise(self, text: str) -> str:
        """Return `text` as it is."""
        return text

    def render(self, dialog: Dialog, tokenizer: Tokenizer, *, is_safety: bool = False) -> Prompt:
        """Return the prompt whose ids equal those of `apply_chat_template`; see `ChatTemplate.render`."""
        messages = self.validate(dialog)
        controls = tokenizer.controls
        shielded = [
            {
                "role": message.role,
                "content": controls.shielded(message.content, is_answer=message.role == "assistant"),
            }
            for message in messages
        ]
        ids = controls.encode(self._rendered(shielded, tokenizer.special_tokens))
        return Prompt(tuple(ids), messages, is_safety, self.answer_prefix)


def _check(messages: Sequence[Message]) -> None:
    """Check what holds for every template: a dialog asks something.

    Raises:
        DialogError: it does not.
    """
    for index, message in enumerate(messages):
        if not isinstance(message.content, str):
            raise DialogError(index, "content must be a string")
        if message.role not in ROLES:
            raise DialogError(index, "role must be system, user or assistant")
    if not messages:
        raise DialogError(None, "messages is empty; send at least one user message")
    if all(message.role == "system" for message in messages):
        raise DialogError(0, "a system message alone asks nothing; add a user message")
    if messages[-1].role != "user":
        raise DialogError(len(messages) - 1, "the last message must be the user's")
