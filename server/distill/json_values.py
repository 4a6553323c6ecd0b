"""The values of a JSON file that is no JSON Lines: elements of an array, or objects one after another.

Only brackets, commas and strings are looked at here. A value stays bytes, so that it is parsed by the same rules as
a line of JSON Lines, and one that is malformed inside is one bad row. Memory is that of one value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson

from winnow.models.errors import BadLine, RunError
from winnow.server.distill.lines import BOM, MAX_ROW_BYTES, Stream, too_long

Value = tuple[int, bytes | BadLine]
"""A value, or the reason why it cannot be read, with the line of the file on which it begins."""
READ = 1 << 16
"""Bytes that are read at once."""
_SPACE = b" \t\r\n"
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("|\\\Z)', re.DOTALL)
"""The rest of a string, up to its end or to a backslash at the end of a chunk."""
_OUTSIDE = re.compile(rb'["\[\]{},]')


def is_json_lines(head: bytes) -> bool:
    """Whether a file that begins with `head` (a mebibyte, or all) has one value a line.

    Otherwise it is an array, or its first object stands on several lines.
    """
    text = head.removeprefix(BOM).lstrip(_SPACE)
    first, _, rest = text.partition(b"\n")
    if text[:1] == b"[":
        # An array of values, unless the text only looks like one, or is the first of several lines.
        return text[1:].lstrip(_SPACE)[:1] not in b'{["]' or (bool(rest.strip(_SPACE)) and _is_json(first))
    if text[:1] != b"{" or _is_json(first):
        return True
    value = next(_Scanner("", is_array=False).feed(text), None)
    return value is None or not isinstance(value[1], bytes) or b"\n" not in value[1] or not _is_json(value[1])


def values(stream: Stream, file: str) -> Iterator[Value]:
    """Yield the elements of an array, or objects one after another; `file` is the name to use in errors.

    Raises:
        RunError: it is neither, or it is cut off; the values before the fault have been yielded.
    """
    scanner: _Scanner | None = None
    before = b""
    while chunk := stream.read(READ):
        if scanner is None:
            before += chunk
            chunk = before.removeprefix(BOM)
            start = chunk.lstrip(_SPACE)
            if not start:
                continue
            if start[:1] not in b"[{":
                raise RunError(f"{file} is not JSON: it begins with neither [ nor {{; --input-format names its format")
            scanner = _Scanner(file, is_array=start[:1] == b"[")
        yield from scanner.feed(chunk)
    if scanner:
        scanner.finish()


class _Scanner:
    """Finds where values end, chunk by chunk.

    `_depth` counts open brackets, an array's own excluded. `_line` is the file's line at the end of the last value,
    and `_begun`, if not 0, the line on which a value that is too long began.
    """

    def __init__(self, file: str, *, is_array: bool) -> None:
        self._file = file
        self._is_array = is_array
        self._is_open = False
        self._is_closed = False
        self._in_string = False
        self._is_escaped = False
        self._depth = 0
        self._count = 0
        self._line = 1
        self._pieces: list[bytes] = []
        self._size = 0
        self._begun = 0

    def feed(self, chunk: bytes) -> Iterator[Value]:
        """Take the next bytes, and yield the values that end in them."""
        place = start = 0
        if self._is_escaped and chunk:
            place, self._is_escaped = 1, False
        while token := _IN_STRING.match(chunk, place) if self._in_string else _OUTSIDE.search(chunk, place):
            place = token.end()
            found = token[token.lastindex or 0]
            if self._in_string:
                self._in_string = found != b'"'
                self._is_escaped = found == b"\\"
            elif found == b'"':
                self._in_string = True
            elif ends := self._bracket(found):
                keeps = found in b"]}" and not self._is_array
                self._keep(chunk[start : place if keeps else place - 1])
                start = place
                if ends == "value":
                    yield from self._value(is_last=found == b"]" and self._is_array)
                else:
                    self._drop()
        self._keep(chunk[start:])

    def _bracket(self, found: bytes) -> str:
        """Count a bracket or a comma outside of strings; return what it ends: "value", "start" or ""."""
        if self._is_closed:
            return ""
        if self._is_array and not self._is_open:
            self._is_open = True
            return "start"
        if found in b"[{":
            self._depth += 1
        elif found in b"]}":
            if self._depth:
                self._depth -= 1
                return "value" if not (self._depth or self._is_array) else ""
            if self._is_array and found == b"]":
                self._is_closed = True
                return "value"
        elif self._is_array and not self._depth:
            return "value"
        return ""

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= MAX_ROW_BYTES + READ:
            self._pieces.append(piece)
        else:  # too long a value is never held whole
            self._begun = self._begun or self._first_line()
            self._line += sum(part.count(b"\n") for part in (*self._pieces, piece))
            self._pieces.clear()

    def _first_line(self) -> int:
        """Return the line on which the current value begins."""
        if self._begun:
            return self._begun
        raw = b"".join(self._pieces)
        return self._line + raw[: len(raw) - len(raw.lstrip(_SPACE))].count(b"\n")

    def _drop(self) -> None:
        self._line += sum(piece.count(b"\n") for piece in self._pieces)
        self._pieces.clear()
        self._size = 0
        self._begun = 0

    def _value(self, *, is_last: bool) -> Iterator[Value]:
        value, line = b"".join(self._pieces).strip(_SPACE), self._first_line()
        is_long = bool(self._begun) or len(value) > MAX_ROW_BYTES
        self._drop()
        if is_last and not value and not is_long and not self._count:
            return  # an empty array
        self._count += 1
        if is_long:
            yield line, too_long()
        elif value:
            yield line, value
        else:
            yield line, BadLine("invalid_json", "a comma stands here without an element beside it; take it out")

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            RunError: the text ends within a value or an array, or goes on after the array.
        """
        rest = b"".join(self._pieces).strip(_SPACE)
        if self._is_closed and rest:
            raise RunError(
                f"{self._file} goes on after its array's end, at line {self._first_line()}; one array a file"
            )
        if self._is_array and not self._is_closed:
            raise RunError(
                f"{self._file} is not a whole array: element {self._count + 1}, at line {self._first_line()}, or the "
                "array itself does not end; fetch or write the file again"
            )
        if not self._is_array and (rest or self._begun):
            raise RunError(
                f"{self._file} ends within value {self._count + 1}, at line {self._first_line()}; "
                "fetch or write the file again"
            )


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
