"""Text files that people write: UTF-8, with or without the mark that some editors put first."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

_COMMENT = re.compile(r"(^|\s)#.*")
_OTHER_MARKS = {  # UTF-16's first mark begins like UTF-32's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises:
        ValueError: the file cannot be read; the message names the file and says why, and shows none of its text.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not a path'}") from None
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        if other := next((name for mark, name in _OTHER_MARKS.items() if data.startswith(mark)), None):
            raise ValueError(f"{path} cannot be read: it is {other} text; save it as UTF-8") from None
        before = data.removeprefix(codecs.BOM_UTF8)[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ValueError(
            f"{path} cannot be read: line {line}, byte {column} (0x{error.object[error.start]:02x}) is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def read_entries(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file of keys, each with its number; comments (#) and blank lines are passed over.

    Raises:
        ValueError: as in `read_text`.
    """
    lines = (_COMMENT.sub("", line).strip() for line in read_text(path).splitlines())
    return [(number, line) for number, line in enumerate(lines, start=1) if line]
