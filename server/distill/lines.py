"""Lines of a text file. Only "\\n" and "\\r\\n" end a line: U+2028, U+0085 and the like are part of its text."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import IO

from winnow.models.errors import BadLine

CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"
MAX_ROW_BYTES = 10_000_000
"""Most bytes of one row: a line without its end, or a JSON value."""
Stream = IO[bytes] | gzip.GzipFile


def read_line(stream: Stream, most: int) -> tuple[bytes, bool]:
    """Return the next line with its end, b"" after the last, and whether it was cut after `most` bytes.

    The rest of a line that was cut is read past, and never held whole.
    """
    line = stream.readline(most)
    is_cut = len(line) == most and not line.endswith(b"\n")
    if is_cut:
        while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
            pass
    return line, is_cut


def lines(stream: Stream) -> Iterator[bytes | BadLine]:
    """Yield lines without their ends, a blank one as b""."""
    most = MAX_ROW_BYTES + len(BOM) + len(b"\r\n")
    first = True
    while line := read_line(stream, most)[0]:
        line = line.removesuffix(b"\n").removesuffix(b"\r").removeprefix(BOM if first else b"")
        first = False
        if len(line) > MAX_ROW_BYTES:
            yield too_long()
        else:
            yield line if line.strip() else b""


def texts(stream: Stream) -> Iterator[dict[str, str] | bytes | BadLine]:
    """Yield each line as a row whose `prompt` it is."""
    for line in lines(stream):
        if isinstance(line, BadLine) or not line:
            yield line
            continue
        try:
            yield {"prompt": line.decode()}
        except UnicodeDecodeError:
            yield not_utf8()


def too_long() -> BadLine:
    """Return the problem of a row that is too long to be read."""
    return BadLine("line_too_long", f"the row has more than {MAX_ROW_BYTES} bytes; shorten or split it")


def not_utf8() -> BadLine:
    """Return the problem of a row that is not UTF-8."""
    return BadLine("invalid_utf8", "the row is not UTF-8; save the file as UTF-8")
