"""Standard streams that cannot end a run: one that is closed, full, or of another encoding loses text, nothing else."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from typing import TextIO, cast

from rich.console import Console


class SafeStream(io.TextIOBase):
    """A text stream in front of `stream` that raises nothing; the first error stops it and is kept in `error`.

    Characters that the encoding lacks become `?`. `stream` is None where the process was started without it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self.error = None if stream is not None else _closed()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding, from which rich chooses the lines of its tables."""
        return self._encoding

    @property
    def is_unicode(self) -> bool:
        """Whether every character can be written."""
        return self._encoding.lower().replace("-", "").startswith("utf")

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write the text, or what the encoding has of it."""
        if self._stream is not None and self.error is None:
            with self._keeping_errors():
                self._stream.write(text.encode(self._encoding, "replace").decode(self._encoding))
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered."""
        if self._stream is not None and self.error is None:
            with self._keeping_errors():
                self._stream.flush()

    @contextlib.contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            self._discard()
        except ValueError:  # closed within this process
            self.error = _closed()

    def _discard(self) -> None:
        """Let the rest go nowhere; or the interpreter would fail once more when it flushes the stream at its end."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


def _closed() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def console(stream: SafeStream) -> Console:
    """Return a console that writes to the stream, without highlighting."""
    return Console(file=cast(TextIO, stream), highlight=False)
