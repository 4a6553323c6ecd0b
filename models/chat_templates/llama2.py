"""The Llama-2 chat format, as token ids and as a Jinja template.

Covers the `[INST]`/`<<SYS>>` format of Meta's reference (`llama/generation.py`, `chat_completion`): ids
are built turn by turn, so that nothing a user writes can become a control id and no BOS is doubled.
The tags are ordinary pieces of the vocabulary, which ids cannot tell from the same text; so no message is
rendered with one in it. Other formats are templates of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import pairwise

from winnow.models.chat_templates.base import TagRule, merged, messages_of
from winnow.models.errors import DialogError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Dialog, Message, Prompt

BEGIN_INSTRUCTION, END_INSTRUCTION = "[INST]", "[/INST]"
BEGIN_SYSTEM, END_SYSTEM = "<<SYS>>\n", "\n<</SYS>>\n\n"
ANSWER_PREFIX = " "
JINJA_CONTROLS = "[bos_token, eos_token, unk_token, pad_token]"
JINJA_BEGIN = "set begin = '[INST] '"
TAGS = (BEGIN_INSTRUCTION, END_INSTRUCTION, "<<SYS>>", "<</SYS>>")


@dataclass(frozen=True, slots=True)
class Llama2Template:
    """The Llama-2 chat format; a `ChatTemplate`."""

    tags: TagRule = "refuse"
    merge_turns: bool = False

    @property
    def name(self) -> str:
        """The template's name in the settings."""
        return "llama2"

    @property
    def digest(self) -> None:
        """None: the format is Winnow's own."""

    @property
    def jinja(self) -> str:
        """The format as a Jinja chat template for Hugging Face tokenizers; the first of `jinja_forms()`."""
        return self.jinja_forms()[0]

    def jinja_forms(self, control_tokens: Sequence[str] = ()) -> tuple[str, ...]:
        """Return a form for tokenizers that put a space behind BOS, and one that writes it, for those that do not."""
        jinja = files(__package__).joinpath("llama2.jinja").read_text(encoding="utf-8")
        if control_tokens:
            jinja = jinja.replace(JINJA_CONTROLS, f"{JINJA_CONTROLS} + {json.dumps(control_tokens)}")
        return jinja, jinja.replace(JINJA_BEGIN, JINJA_BEGIN.replace("'[", "' ["))

    def validate(self, dialog: Dialog) -> tuple[Message, ...]:
        """Return the messages of `dialog`; see `ChatTemplate.validate`."""
        messages = tuple(self._accepted(index, message) for index, message in enumerate(messages_of(dialog)))
        if not messages:
            raise DialogError(None, "messages is empty; send at least one user message")
        _check_roles([message.role for message in messages], merge_turns=self.merge_turns)
        if self.merge_turns:
            return merged(messages)
        systems = _leading_systems([message.role for message in messages])
        return (*merged(messages[:systems]), *messages[systems:])

    def _accepted(self, index: int, message: Message) -> Message:
        """Return the message without tags: an assistant's are history, and its author cannot take them out."""
        if not isinstance(message.content, str):
            raise DialogError(index, "content must be a string")
        tag = self.reserved_tag(message.content)
        if tag is None:
            return message
        if message.role != "assistant" and self.tags == "refuse":
            raise DialogError(index, f"content holds the template's own tag {tag}, which is not allowed")
        return Message(message.role, self.neutralise(message.content))

    def with_tags(self, rule: TagRule) -> Llama2Template:
        """Return the template with another rule for tags in users' and system messages."""
        return replace(self, tags=rule)

    def with_merging(self, merge_turns: bool) -> Llama2Template:
        """Return the template with another rule for two messages of one role in a row."""
        return replace(self, merge_turns=merge_turns)

    def reserved_tag(self, text: str) -> str | None:
        """Return the first of the format's tags that `text` contains, or None."""
        return next((tag for tag in TAGS if tag in text), None)

    def neutralise(self, text: str) -> str:
        """Return `text` with a space behind the first character of each tag: `[ INST]` is not a tag."""
        for tag in TAGS:
            text = text.replace(tag, f"{tag[0]} {tag[1:]}")
        return text

    def render(self, dialog: Dialog, tokenizer: Tokenizer, *, is_safety: bool = False) -> Prompt:
        """Return the prompt whose ids equal those of Meta's `chat_completion`; see `ChatTemplate.render`."""
        messages = self.validate(dialog)
        turns = _merge_system(messages)
        begin = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
        ids: list[int] = []
        for question, answer in zip(turns[0:-1:2], turns[1::2], strict=True):
            text = f"{BEGIN_INSTRUCTION} {question.strip()} {END_INSTRUCTION} {answer.strip()} "
            ids += [*begin, *tokenizer.encode(text), tokenizer.eos_id]
        last = f"{BEGIN_INSTRUCTION} {turns[-1].strip()} {END_INSTRUCTION}"
        ids += [*begin, *tokenizer.encode(last)]
        return Prompt(tuple(ids), messages, is_safety, ANSWER_PREFIX, tags=TAGS)


def _leading_systems(roles: list[str]) -> int:
    return next((index for index, role in enumerate(roles) if role != "system"), len(roles))


def _check_roles(roles: list[str], *, merge_turns: bool) -> None:
    first = _leading_systems(roles)
    for index, role in enumerate(roles):
        if role not in ("system", "user", "assistant"):
            raise DialogError(index, "role must be system, user or assistant")
        if role == "system" and index > first:
            raise DialogError(index, "a system message may only stand first")
    if first == len(roles):
        raise DialogError(0, "a system message alone asks nothing; add a user message")
    if roles[first] != "user":
        raise DialogError(first, "the first message after the system messages must be the user's")
    for index, (before, after) in enumerate(pairwise(roles[first:]), start=first + 1):
        if before == after and not merge_turns:
            raise DialogError(
                index, f"two {after} messages in a row; user and assistant must alternate, unless merge_turns is set"
            )
    if roles[-1] != "user":
        raise DialogError(len(roles) - 1, "the last message must be the user's")


def _merge_system(messages: tuple[Message, ...]) -> list[str]:
    """Return the contents from the first user message on, which begins with the system text, not yet stripped."""
    contents = [message.content for message in messages]
    if messages[0].role != "system":
        return contents
    system, first, *rest = contents
    return [BEGIN_SYSTEM + system + END_SYSTEM + first, *rest]
