"""Whole texts with control tokens to ids, as a tokenizer's own users get them, but no message makes a control id.

A chat template writes control tokens into the text that it renders; a person may write the same characters. They are
told apart by a mark that is put into the person's before the template sees them, and taken out behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from winnow.models.spelling import without_dummy_space
from winnow.models.tokenizer import LONG_TEXT

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer
    from transformers import PreTrainedTokenizerBase

CACHED_PIECES = 1024
"""Pieces of text between control tokens whose ids are kept: earlier turns are the same for each answer."""
_MARKS = (chr(code) for code in range(0xE000, 0xF8FF))
MARKS = tuple(_MARKS)
"""Private characters, one of which no message has."""
PROBES = ("Hi", " a  b ", "\n\nb\t(c)", "中文 🙂 é", "x: 0123, y", "ASSISTANT:Paris")


class TextTokenizer:
    """Whole texts to ids. `encode` reads control tokens in a text; `guard` makes those of a message plain text.

    Raises:
        ValueError: the tokenizer is not a fast one, or treats text beside control tokens in a way that is not known.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ValueError("the tokenizer is not a fast one; it needs a tokenizer.json")
        self.tokenizer = tokenizer
        self.bos_id: int | None = tokenizer.bos_token_id
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()
        tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._names = sorted({token.content for token in tokens}, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, self._names))) if self._names else None
        self._split = re.compile("|".join(map(_pattern, sorted(tokens, key=lambda token: -len(token.content)))))
        self._first = _copy(tokenizer.backend_tokenizer)
        self._cached = lru_cache(CACHED_PIECES)(self._piece)
        self.adds_bos = tokenizer("a")["input_ids"][:1] == [self.bos_id] and self.bos_id is not None
        self._require_exact(tokenizer.backend_tokenizer)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text with control tokens in it; nothing is added."""
        return self._encode(text, "")

    def encode_marked(self, text: str, mark: str) -> list[int]:
        """Return the ids of a text in which `mark` stands in what only looks like control tokens."""
        return self._encode(text, mark)

    def guard(self, texts: Iterable[str]) -> tuple[list[str], str]:
        """Return `texts` with a mark in each name of a control token, and that mark, which was in none of them."""
        given = list(texts)
        mark = next(mark for mark in MARKS if not any(mark in text for text in given))
        return [self._marked(text, mark) for text in given], mark

    def _marked(self, text: str, mark: str) -> str:
        while self._control and (found := self._control.search(text)):
            at = found.start() + 1
            text = text[:at] + mark + text[at:]
        return text

    def _encode(self, text: str, mark: str) -> list[int]:
        ids: list[int] = []
        start = 0
        for found in self._split.finditer(text) if self._names else ():
            ids += self._ids(text[start : found.start()], mark, is_first=start == 0)
            ids.append(
                self.vocabulary[found.group().strip() if found.group() not in self.vocabulary else found.group()]
            )
            start = found.end()
        return [*ids, *self._ids(text[start:], mark, is_first=start == 0)]

    def _ids(self, piece: str, mark: str, *, is_first: bool) -> Sequence[int]:
        if mark:
            piece = piece.replace(mark, "")
        if not piece:
            return ()
        return self._piece(piece, is_first) if len(piece) > LONG_TEXT else self._cached(piece, is_first)

    def _piece(self, text: str, is_first: bool) -> tuple[int, ...]:
        encoder = self._first if is_first else self._later
        return tuple(encoder.encode(text, add_special_tokens=False).ids)

    def _require_exact(self, backend: FastTokenizer) -> None:
        """Find how the tokenizer reads text behind a control token: as at the start, or without a dummy space."""
        for later in (_copy, without_dummy_space):
            self._later = later(backend)
            self._cached.cache_clear()
            if all(self.encode(text) == _plain(backend, text) for text in self._probes()):
                return
        raise ValueError("the tokenizer splits text beside control tokens in a way that is not known")

    def _probes(self) -> list[str]:
        names = self._names[:4]
        return [*PROBES, *(f"{one}{name}{other}" for name in names for one in PROBES for other in PROBES)]


def _plain(backend: FastTokenizer, text: str) -> list[int]:
    return list(backend.encode(text, add_special_tokens=False).ids)


def _copy(backend: FastTokenizer) -> FastTokenizer:
    """Return a copy that reads no control token in a text, and neither cuts nor pads."""
    from tokenizers import Tokenizer as FastTokenizer

    copy = FastTokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy


def _pattern(token: object) -> str:
    """Return what a control token takes of a text: some take the white space beside them."""
    name = re.escape(str(token.content))  # type: ignore[attr-defined]
    before = r"\s*" if token.lstrip else ""  # type: ignore[attr-defined]
    return before + name + (r"\s*" if token.rstrip else "")  # type: ignore[attr-defined]
