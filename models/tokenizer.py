"""A tokenizer without a chat format: text to ids and back, at the start or in the middle of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from winnow.models.control_tokens import ControlTokens
from winnow.models.spelling import is_byte_level, require_spelling, spell, spell_bytes, without_dummy_space
from winnow.models.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONG_TEXT = 20_000
"""Characters above which a text is tokenised in a thread, so that the event loop serves others meanwhile."""
CACHED_TEXTS = 2048
"""Continuations whose ids are kept, of `LONG_TEXT` characters at most."""


class Tokenizer:
    """A fast Hugging Face tokenizer: SentencePiece with a dummy leading space and byte fallback, or byte-level BPE.

    A SentencePiece vocabulary's ids are SentencePiece's, whichever class ships it: `spelling` tells how. `bos_id` is
    None for a byte-level vocabulary without BOS. The wrapped tokenizer is used with explicit options on every call and
    is never changed.

    Raises:
        ValueError: there is no EOS id, or no BOS id in a SentencePiece vocabulary, or the tokenizer is of another kind
            (WordPiece, no byte fallback …).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no BOS or no EOS id")
        if not getattr(tokenizer, "is_fast", True):
            raise ValueError("the tokenizer is not a fast one; it needs a tokenizer.json")
        backend = getattr(tokenizer, "backend_tokenizer", None)
        is_bytes = backend is not None and is_byte_level(backend)
        if backend is None or (tokenizer.bos_token_id is None and not is_bytes):
            raise ValueError("the tokenizer has no BOS or no EOS id")
        self._tokenizer = tokenizer
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int = tokenizer.eos_token_id
        special = (token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.control_ids = frozenset((*tokenizer.all_special_ids, *special))
        self._plain = without_dummy_space(backend)
        has_dummy_space = tokenizer.encode("a", add_special_tokens=False) == self._encode(" a")
        self.dummy_space = " " if has_dummy_space else ""
        self._longest_piece = max(map(len, tokenizer.get_vocab()))
        self.text_start = _text_start(tokenizer) if is_bytes else (tokenizer.bos_token_id,)
        """The ids that precede a raw text: BOS, or none where the tokenizer itself adds none."""
        self._names = _names(tokenizer)
        self._bytes = _spellings(tokenizer, self._names, self.control_ids, is_bytes=is_bytes)
        """Spellings of the tokens in the middle of a text, so that the bytes of an answer are exactly its tokens'."""
        # Both reward models encode an answer, and `/v1/rewards` checks its length before: once is enough.
        self._cached_continuation = lru_cache(CACHED_TEXTS)(self._encode)
        require_spelling(self, backend)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text: no BOS or EOS is added, and a literal `</s>` stays text."""
        return self._encode(self.dummy_space + text) if text else []

    def encode_continuation(self, text: str) -> list[int]:
        """Return the ids of `text` in the middle of a text, where a leading space is a space."""
        return self._encode(text) if len(text) > LONG_TEXT else list(self._cached_continuation(text))

    def encode_answer(self, prompt: Prompt, answer: str) -> list[int]:
        """Return the ids of `answer` after `prompt`, without EOS; none for an empty answer."""
        return self.encode_continuation(prompt.answer_prefix + answer) if answer else []

    def _encode(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def raw_prompt(self, text_or_ids: str | Sequence[int]) -> Prompt:
        """Return a prompt that no template has rendered: `text_start` and the text, or the given ids as they are."""
        if isinstance(text_or_ids, str):
            ids = (*self.text_start, *self.encode(text_or_ids))
            return Prompt(ids, raw_text=text_or_ids)
        text = self.decode(text_or_ids, skip_control=True)
        return Prompt(tuple(text_or_ids), raw_text=text)

    def decode(self, ids: Sequence[int], *, skip_control: bool = False) -> str:
        """Return the text of `ids` at the start of a text; `skip_control` leaves control ids out.

        Bytes that make no whole character, as where a limit cuts one in two, are left out; whole characters stay.
        """
        spell = self.token_bytes if skip_control else self._shown_bytes
        return b"".join(map(spell, ids)).removeprefix(self.dummy_space.encode()).decode(errors="ignore")

    def decode_continuation(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` in the middle of a text: keeps a leading space, leaves control ids out.

        Bytes that make no whole character are left out, as in `decode`.
        """
        return b"".join(map(self.token_bytes, ids)).decode(errors="ignore")

    @cached_property
    def controls(self) -> ControlTokens:
        """The control tokens, for dialogs that a Jinja template renders."""
        return ControlTokens(self._tokenizer.backend_tokenizer)

    @property
    def special_tokens(self) -> dict[str, Any]:
        """The names of BOS, EOS and others, as a Jinja template reads them: `bos_token` and so on."""
        return dict(self._tokenizer.special_tokens_map)

    def ids_of_jinja(self, jinja: str, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """Return the ids that users of the wrapped tokenizer get by a Jinja template, and 1 for those with loss."""
        rendered = self._tokenizer.apply_chat_template(
            list(messages), chat_template=jinja, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return list(rendered["input_ids"]), list(rendered["assistant_masks"])

    def apply_jinja(self, jinja: str, messages: Sequence[Mapping[str, Any]], *, to_answer: bool) -> list[int]:
        """Return the ids that the wrapped tokenizer gives by a Jinja template, with the opening of an answer or not."""
        options = {"chat_template": jinja, "tokenize": True, "return_dict": True, "add_generation_prompt": to_answer}
        return list(self._tokenizer.apply_chat_template(list(messages), **options)["input_ids"])

    def fewest_tokens(self, text: str) -> int:
        """Return a lower bound on `len(encode(text))` at no cost, from the length of the longest piece."""
        return -(-len(text) // self._longest_piece)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes of one token in the middle of a text; empty for a control id."""
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def _shown_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token; a control id's are those of its name."""
        return self.token_name(token_id).encode() if token_id in self.control_ids else self.token_bytes(token_id)

    def token_name(self, token_id: int) -> str:
        """Return the token as the vocabulary spells it; empty for an id that only pads the vocabulary."""
        return self._names[token_id] if token_id < len(self._names) else ""

    @property
    def control_tokens(self) -> list[str]:
        """The names of the control ids, in their order."""
        return [self.token_name(token_id) for token_id in sorted(self.control_ids)]

    def equals(self, other: Tokenizer) -> bool:
        """Whether both give the same ids for the same text, as far as vocabulary and control ids tell."""
        mine = (self._tokenizer.get_vocab(), self.bos_id, self.eos_id)
        return mine == (other._tokenizer.get_vocab(), other.bos_id, other.eos_id)


def _names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the name of each token by its id; empty where an id has none."""
    names = {token_id: name for name, token_id in tokenizer.get_vocab().items()}
    return [names.get(token_id, "") for token_id in range(max(names) + 1)]


def _spellings(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str], control_ids: Set[int], *, is_bytes: bool
) -> list[bytes]:
    """Return the bytes that each token stands for; an added token stands for its name, a control token for nothing."""
    added = tokenizer.added_tokens_decoder if is_bytes else {}
    of_name = spell_bytes if is_bytes else spell
    return [
        b"" if token_id in control_ids else name.encode() if token_id in added else of_name(name)
        for token_id, name in enumerate(names)
    ]


def _text_start(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids that the tokenizer itself puts before a text."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    start = next((place for place in range(len(whole)) if whole[place : place + len(plain)] == plain), 0)
    return tuple(whole[:start])
