"""The keyboard of a POSIX terminal, with what arrives at once taken as one piece. Not for Windows."""

from __future__ import annotations

import itertools
import select
from collections.abc import Iterable, Iterator

from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

BURST = 64
"""Keys at once that nobody types: a paste that the terminal did not mark, or a program that types."""
BURST_SECONDS = 0.02
"""Seconds in which a burst goes on: it comes in pieces of 1,024 bytes, and the end of a piece means nothing."""
MAX_KEYS = 1 << 20


class Keyboard(Vt100Input):
    """The keys of a terminal; a long run of characters is one paste, which costs far less than a key for each."""

    def read_keys(self) -> list[KeyPress]:
        """Return the keys that have arrived; all of a burst together."""
        keys = super().read_keys()
        while BURST <= len(keys) < MAX_KEYS and not self.closed and self._has_more():
            keys += super().read_keys()
        return list(merged(keys))

    def _has_more(self) -> bool:
        return bool(select.select([self.fileno()], [], [], BURST_SECONDS)[0])


def merged(keys: Iterable[KeyPress]) -> Iterator[KeyPress]:
    """Yield the keys, with every run of at least BURST characters as one paste."""
    for is_text, run in itertools.groupby(keys, _is_character):
        pieces = list(run)
        if is_text and len(pieces) >= BURST:
            yield KeyPress(Keys.BracketedPaste, "".join(piece.data for piece in pieces))
        else:
            yield from pieces


def _is_character(press: KeyPress) -> bool:
    return not isinstance(press.key, Keys)
