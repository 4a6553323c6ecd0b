"""The spelling of texts by a vocabulary: without a dummy space, and with tokens whose bytes are the text.

Covers SentencePiece vocabularies with byte fallback, and byte-level BPE, whichever class ships them. Classes differ in
where they put the dummy space (a normalizer, or a pre-tokenizer that adds none to a text that begins with a space), so
it is taken out here and added by `Tokenizer`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Set
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from winnow.models.control_tokens import control_tokens, renamed, secret_names

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

SPACE = "▁"
"""SentencePiece's spelling of a space."""
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
PROBES = (
    *("a", " a", "  a  b ", "a , b .  c's", "\n", "\n\na\tb\r\n ", "   ", "0123456789", 'x = {"y": [1.5, (2)]};'),
    *("naïve café ß", "中文字符", "עברית", "🙂 👩‍👩‍👧", "\u2028\u200b", "<0x0A>", "</s><s>"),
    *("［/INST］", "＜＜SYS＞＞", "ﬁ ①", "e\u0301"),
)
"""Texts that every accepted tokenizer spells byte by byte. The last four are other texts after Unicode normalisation
(NFKC), which would turn wide brackets into a tag of the chat template behind the check for tags. Byte-level BPE may
compose characters (NFC, as Qwen's does), which makes no tag."""


class Speller(Protocol):
    """A `Tokenizer`, as far as it spells."""

    @property
    def control_ids(self) -> Set[int]:
        """The ids that are no text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` at the start of a text."""
        ...

    def encode_continuation(self, text: str) -> list[int]:
        """Return the ids of `text` in the middle of a text."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token."""
        ...

    def token_name(self, token_id: int) -> str:
        """Return the token as the vocabulary spells it."""
        ...


def without_dummy_space(backend: FastTokenizer) -> FastTokenizer:
    """Return a copy of `backend` that adds no space to a text, and that never reads text as a control token."""
    from tokenizers import Tokenizer as FastTokenizer

    if is_byte_level(backend):
        return _byte_level_without_dummy_space(backend)
    state = json.loads(backend.to_str())
    steps = [step for step in _steps(state, "normalizer") if step != {"type": "Prepend", "prepend": SPACE}]
    cuts = _steps(state, "pre_tokenizer")
    if any(cut["type"] == "Metaspace" for cut in cuts):
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
        cuts = [cut for cut in cuts if cut["type"] != "Metaspace"]
    state["normalizer"] = {"type": "Sequence", "normalizers": steps}
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": cuts} if cuts else None
    copy = FastTokenizer.from_str(json.dumps({**state, "truncation": None, "padding": None}))
    # A quarter of the time of setting that on each call.
    copy.encode_special_tokens = True
    return copy


def _byte_level_without_dummy_space(backend: FastTokenizer) -> FastTokenizer:
    """Return such a copy of a byte-level tokenizer; markup that its vocabulary does not call special is text, too."""
    from tokenizers import Tokenizer as FastTokenizer

    # The tokens stay, so that all ids do.
    state = renamed(backend, secret_names(control_tokens(backend.get_added_tokens_decoder())))
    for step in _steps(state, "pre_tokenizer"):
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    return FastTokenizer.from_str(json.dumps(state))


def is_byte_level(backend: FastTokenizer) -> bool:
    """Whether `backend` is byte-level BPE: its vocabulary spells bytes, each as a character of its own."""
    parts = {"pre_tokenizer": backend.pre_tokenizer, "decoder": backend.decoder}
    if type(backend.model).__name__ != "BPE" or None in parts.values():
        return False
    state = {name: json.loads(part.__getstate__()) for name, part in parts.items()}
    return all(any(step["type"] == "ByteLevel" for step in _steps(state, name)) for name in parts)


@cache
def _bytes_of_characters() -> dict[str, int]:
    """Return the byte of each character in a byte-level vocabulary: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def spell(name: str) -> bytes:
    """Return the bytes that the token called `name` stands for in a SentencePiece vocabulary."""
    return bytes([int(name[3:5], 16)]) if _BYTE_PIECE.fullmatch(name) else name.replace(SPACE, " ").encode()


def spell_bytes(name: str) -> bytes:
    """Return the bytes that the token called `name` stands for in a byte-level vocabulary."""
    table = _bytes_of_characters()
    return bytes(table[character] for character in name) if table.keys() >= {*name} else name.encode()


def _steps(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    part = state.get(name)
    if not part:
        return []
    if part["type"] != "Sequence":
        return [part]
    return list(part.get("normalizers") or part.get("pretokenizers") or part.get("decoders") or ())


def require_spelling(tokenizer: Speller, backend: FastTokenizer) -> None:
    """Check that the bytes of each token are the text it decodes to, and that those of a text's tokens are the text.

    Everything that is cut at token borders relies on it: logprobs, offsets, streams, answers that end in the middle
    of a character, and scores of a text instead of the sampled ids.

    Raises:
        ValueError: they are not; the message names one token or text.
    """
    composes = is_byte_level(backend)
    for text in PROBES:
        accepted = (text, unicodedata.normalize("NFC", text)) if composes else (text,)
        ids = tokenizer.encode_continuation(text)
        if b"".join(map(tokenizer.token_bytes, ids)) not in [one.encode() for one in accepted]:
            raise _other_kind(f"it spells {text!r} as {' '.join(map(tokenizer.token_name, ids))!r}")
        # A byte-level tokenizer shows its dummy space; SentencePiece takes it off.
        if (decoded := backend.decode(ids if composes else tokenizer.encode(text))) not in accepted:
            raise _other_kind(f"it encodes {text!r}, and decodes that as {decoded!r}")
    _require_spelling_of_tokens(tokenizer, backend)


def _require_spelling_of_tokens(tokenizer: Speller, backend: FastTokenizer) -> None:
    start = tokenizer.encode("a")
    before = backend.decode(start)
    ids = sorted(set(backend.get_vocab(with_added_tokens=True).values()) - tokenizer.control_ids)
    decoded = backend.decode_batch([[*start, token_id] for token_id in ids])
    for token_id, text in zip(ids, decoded, strict=True):
        if text != before + tokenizer.token_bytes(token_id).decode(errors="replace"):
            raise _other_kind(f"its token {tokenizer.token_name(token_id)!r} stands for {text.removeprefix(before)!r}")


def _other_kind(example: str) -> ValueError:
    return ValueError(
        f"the tokenizer is of another kind than Llama 2's: {example}; "
        "Winnow serves SentencePiece vocabularies with byte fallback, and byte-level BPE"
    )
