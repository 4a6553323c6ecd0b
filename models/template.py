"""The Llama-2 chat template, as token ids.

Covers the `[INST]`/`<<SYS>>` format of Meta's reference (`llama/generation.py`, `chat_completion`): ids are built turn by
turn, so that nothing a user writes can become a control id and no BOS is doubled. It does not render other formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from winnow.models.errors import DialogError
from winnow.models.types import Dialog, Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGIN_INSTRUCTION, END_INSTRUCTION = "[INST]", "[/INST]"
BEGIN_SYSTEM, END_SYSTEM = "<<SYS>>\n", "\n<</SYS>>\n\n"
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
TAGS = (BEGIN_INSTRUCTION, END_INSTRUCTION, "<<SYS>>", "<</SYS>>")


class Llama2Template:
    """Renders dialogs for one tokenizer.

    The tokenizer is any fast Hugging Face tokenizer with SentencePiece semantics (a dummy leading space, byte fallback)
    and a BOS and an EOS id. It is used with options of its own on every call and is not changed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers import Tokenizer

        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no BOS or no EOS id; the Llama-2 template needs both")
        self.tokenizer = tokenizer
        self.bos_id: int = tokenizer.bos_token_id
        self.eos_id: int = tokenizer.eos_token_id
        # A copy that is told once to take nothing for a control token: a quarter of the time of asking the other each time.
        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._plain.no_truncation()
        self._plain.no_padding()
        self.control_ids = frozenset(tokenizer.all_special_ids)
        self._longest_piece = max(map(len, tokenizer.get_vocab()))
        self._anchor = self.encode(END_INSTRUCTION)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: no BOS or EOS is added, and a literal `</s>` stays text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of an answer as it follows `[/INST]`: what SentencePiece gives for it, dummy space included."""
        return self.encode_continuation(f" {text}") if text else []

    def encode_continuation(self, text: str) -> list[int]:
        """Token ids of `text` in the middle of a text, where a leading space is a space.

        Encoded behind a tag, because tokenizers differ in how they treat white space at the start of a text.
        """
        ids = self.encode(END_INSTRUCTION + text)
        return ids[len(self._anchor) :] if ids[: len(self._anchor)] == self._anchor else self.encode(text)

    def fewest_tokens(self, text: str) -> int:
        """A lower bound on `len(encode(text))`, from the length of the longest piece: what it costs to know is nothing."""
        return -(-len(text) // self._longest_piece)

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of one token in the middle of a text; empty for a control id."""
        if token_id in self.control_ids:
            return b""
        piece = self.token_name(token_id)
        if _BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode()

    def token_name(self, token_id: int) -> str:
        """The token as the vocabulary spells it; empty for an id that pads the vocabulary."""
        return str(self.tokenizer.convert_ids_to_tokens(token_id) or "")

    def render_raw(self, text_or_ids: str | Sequence[int], *, is_safety: bool = False) -> Prompt:
        """Return a prompt that no template has touched: BOS and the text, or the given ids as they are."""
        ids = [self.bos_id, *self.encode(text_or_ids)] if isinstance(text_or_ids, str) else text_or_ids
        return Prompt(tuple(ids), is_safety, is_raw=True)

    def render(self, dialog: Dialog, *, is_safety: bool = False) -> Prompt:
        """Return the prompt whose ids equal Meta's `chat_completion`, tagged with `is_safety`.

        Raises:
            DialogError: no messages, roles out of order, or a tag inside a message; names the message and the reason.
        """
        turns = _merge_system(check_dialog(dialog))
        ids: list[int] = []
        for question, answer in zip(turns[0:-1:2], turns[1::2], strict=True):
            text = f"{BEGIN_INSTRUCTION} {question.strip()} {END_INSTRUCTION} {answer.strip()} "
            ids += [self.bos_id, *self.encode(text), self.eos_id]
        ids += [self.bos_id, *self.encode(f"{BEGIN_INSTRUCTION} {turns[-1].strip()} {END_INSTRUCTION}")]
        return Prompt(tuple(ids), is_safety)


def _messages(dialog: Dialog) -> Iterator[Message]:
    for index, item in enumerate(dialog):
        if isinstance(item, Message):
            yield item
        elif isinstance(item, Mapping) and {"role", "content"} <= item.keys():
            yield Message(item["role"], item["content"])
        else:
            raise DialogError(index, "is not a message with a role and a content")


def check_dialog(dialog: Dialog) -> list[Message]:
    """Return the messages, or say which one breaks the format and why."""
    messages = list(_messages(dialog))
    if not messages:
        raise DialogError(None, "messages is empty; send at least one user message")
    for index, message in enumerate(messages):
        if not isinstance(message.content, str):
            raise DialogError(index, "content must be a string")
        if tag := next((tag for tag in TAGS if tag in message.content), None):
            raise DialogError(index, f"content holds the template's own tag {tag}, which is not allowed")
    _check_roles([message.role for message in messages])
    return messages


def _check_roles(roles: list[str]) -> None:
    for index, role in enumerate(roles):
        if role not in ("system", "user", "assistant"):
            raise DialogError(index, "role must be system, user or assistant")
        if role == "system" and index:
            raise DialogError(index, "a system message may only stand first")
    first = 1 if roles[0] == "system" else 0
    if first == len(roles):
        raise DialogError(0, "a system message alone asks nothing; add a user message")
    if roles[first] != "user":
        raise DialogError(first, "the first message after an optional system message must be the user's")
    for index, (before, after) in enumerate(pairwise(roles[first:]), start=first + 1):
        if before == after:
            raise DialogError(index, f"two {after} messages in a row; user and assistant must alternate")
    if roles[-1] != "user":
        raise DialogError(len(roles) - 1, "the last message must be the user's")


def _merge_system(messages: list[Message]) -> list[str]:
    """Contents from the first user message on, the system text merged into that first one before any stripping."""
    contents = [message.content for message in messages]
    if messages[0].role != "system":
        return contents
    system, first, *rest = contents
    return [BEGIN_SYSTEM + system + END_SYSTEM + first, *rest]
