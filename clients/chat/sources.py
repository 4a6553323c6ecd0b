"""The sources of the chat's messages: their protocol, and the one that reads lines of standard input."""

from __future__ import annotations

import contextlib
import io
from typing import Protocol, Self, TextIO


class Source(Protocol):
    """Messages, one at a time. It is entered before the first one, and left after the last."""

    is_interactive: bool
    """Whether somebody types, who can ask again after a failure."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def read(self) -> str | None:
        """Return the next message, which is not empty; None at the end."""
        ...


class PipedLines:
    """The lines of a stream, each a message; `stream` is None where the process was started without it."""

    is_interactive = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the stream open: it is not ours."""

    def read(self) -> str | None:
        """Return the next line that is not blank; None at the end."""
        while line := self._stream.readline():
            if text := trimmed(decoded(line, self._encoding).removeprefix("\ufeff")):
                return text
        return None


def decoded(text: str, encoding: str) -> str:
    """Return text whose undecodable bytes were kept as surrogates, read as UTF-8 if it is that.

    Otherwise they stay as they are, and the client refuses the message.
    """
    if not any("\udc80" <= character <= "\udcff" for character in text):
        return text
    with contextlib.suppress(UnicodeError):
        return text.encode(encoding, "surrogateescape").decode("utf-8")
    return text


def trimmed(text: str) -> str:
    """Return a message without white space around it; the first of several lines keeps its indentation."""
    text = text.rstrip()
    blank = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, blank) + 1 :] if "\n" in text.lstrip() else text[blank:]
