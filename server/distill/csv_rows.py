"""Rows of a CSV file with a header, whose delimiter is the comma, semicolon or tab that the header has most of."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from winnow.models.errors import BadLine, RunError
from winnow.server.distill.dialogs import printable
from winnow.server.distill.layouts import DIALOGS, KEYS
from winnow.server.distill.lines import BOM, MAX_ROW_BYTES, Stream, not_utf8, read_line

SIDES = ("chosen", "rejected")
LISTS = (*DIALOGS, *SIDES, "turns")
"""Columns whose cells are read as JSON if they hold a JSON list."""
_TRUTHS = {"true": True, "false": False}
_DELIMITERS = ",;\t"
_SEP = re.compile(r"sep=(\W)", re.IGNORECASE)
"""The line that Excel reads before the header: which delimiter the file has."""
Content = dict[str, Any] | bytes | BadLine


def records(stream: Stream, file: str) -> Iterator[tuple[int, Content]]:
    """Yield each record under the header with the line on which it begins: a mapping from the header's names.

    A blank line is b"". An empty cell is None. A cell of `is_safety` is true or false, and a JSON list under one of
    `LISTS` is that list; all other cells are texts.

    Raises:
        RunError: the header cannot be read, or names no column with a prompt, or a cell is too long to tell where it
            ends; `file` is the name to use.
    """
    source = _Lines(stream)
    first = next(source, "")
    if named := _SEP.fullmatch(first.strip("\r\n")):
        first = next(source, "")
    if not first.strip():
        if not any(line.strip() for line in source):
            return
        raise RunError(f"{file} begins with a blank line; CSV needs a header, the names of its columns")
    delimiter = named[1] if named else max(_DELIMITERS, key=first.count)
    reader = csv.reader(itertools.chain([first], source), delimiter=delimiter, strict=True)
    header = _header(reader, file)
    while True:
        begin = source.count + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _problem(error)
            if problem.code == "line_too_long" and (source.count > begin or source.last.count('"') % 2):
                raise RunError(
                    f"{file}: a cell of the row at line {begin} goes on for more than {csv.field_size_limit():,} "
                    "characters and several lines; shorten it, or close its quote"
                ) from None  # what comes next is the rest of the cell, not rows
            yield begin, problem
        else:
            yield begin, _row(header, cells) if cells else b""


class _Lines(Iterator[str]):
    """The lines of a stream as texts with their ends; bytes that are not UTF-8 become surrogates."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.count = 0
        self.last = ""

    def __next__(self) -> str:
        line, is_cut = read_line(self._stream, MAX_ROW_BYTES)
        if not line:
            raise StopIteration
        if is_cut:
            line = b"x" * (csv.field_size_limit() + 1) + b"\n"  # the csv module refuses it as too long
        self.count += 1
        self.last = (line.removeprefix(BOM) if self.count == 1 else line).decode(errors="surrogateescape")
        return self.last


def _header(reader: Iterator[list[str]], file: str) -> list[str]:
    try:
        names = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise RunError(f"the header of {file} is at fault: {_problem(error)}") from None
    if not _is_utf8(names):
        raise RunError(f"the header of {file} is not UTF-8; save the file as UTF-8")
    twice = next((name for place, name in enumerate(names) if name and name in names[:place]), None)
    if twice is not None:
        raise RunError(f"{file} has two columns of one name in its header; rename one")
    if not set(names) & set(KEYS):
        raise RunError(
            f"{file} has no column {' or '.join(KEYS)}; its first line, the header, has: {printable(', '.join(names))}"
        )
    return names


def _problem(error: csv.Error) -> BadLine:
    reason = str(error)
    if "field limit" in reason:
        return BadLine("line_too_long", f"a cell has more than {csv.field_size_limit():,} characters; shorten it")
    if "new-line" in reason:
        reason = "a carriage return ends a line, or stands in a cell without quotes; save it with line feeds"
    return BadLine("invalid_csv", f"the row is not CSV: {reason}")


def _row(header: Sequence[str], cells: Sequence[str]) -> Content:
    if len(cells) != len(header):
        return BadLine(
            "invalid_csv", f"the row has {len(cells)} cells, the header {len(header)}; quote what has commas"
        )
    if not _is_utf8(cells):
        return not_utf8()
    return {name: _cell(name, text) for name, text in zip(header, cells, strict=True) if name}


def _is_utf8(cells: Sequence[str]) -> bool:
    """Whether no cell has a byte that was not UTF-8."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _cell(name: str, text: str) -> Any:
    if not text.strip():
        return None
    if name == "is_safety":
        return _TRUTHS.get(text.strip().lower(), text)
    if name in LISTS and text.lstrip().startswith("["):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        # An answer may be a JSON list, too: only a list of messages is meant.
        return text if name in SIDES and not all(isinstance(item, dict) for item in found) else found
    return text
