"""The standard streams as the commands need them, whatever the shell, the terminal or a scheduler gave the process.

Done once, at the entrance: libraries write to descriptors 1 and 2 by number, and a file opened while one of them is
closed would get its number, and their output.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

_NAMES = ("stdin", "stdout", "stderr")
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH", "JUPYTER_COLUMNS", "JUPYTER_LINES")
_UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EIO)


def prepare_streams() -> None:
    """Open closed streams on the null device, and let no character end a command that a stream cannot encode."""
    for name in _NAMES:
        if getattr(sys, name) is None:
            _open_null(name)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # UTF-8 fails only on the bytes of odd file names; elsewhere a ? is easier to read.
            is_utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="backslashreplace" if is_utf8 and name != "stdin" else "replace")


def prepare_terminal() -> None:
    """Forget sizes of a terminal that are no sizes: libraries print nothing into 0 columns, or raise on a word."""
    for name in _SIZES:
        size = os.environ.get(name, "")
        if not (size.isascii() and size.isdecimal() and int(size[:6])):
            os.environ.pop(name, None)


def _open_null(name: str) -> None:
    """Open a stream that was closed when the process began; the null device takes its number, the lowest free one."""
    number = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(number, True)
    setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))


@contextlib.contextmanager
def output_that_may_end() -> Iterator[None]:
    """Flush standard output at the end of the block; a reader that has left, or a full disk, is no traceback.

    Raises:
        SystemExit: with status 1, if the output could not be written.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        if error.errno != errno.EPIPE:  # `| head` wants no more, and no word about it
            with contextlib.suppress(OSError):
                print(f"winnow: the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the interpreter's own last flush
        raise SystemExit(1) from None
