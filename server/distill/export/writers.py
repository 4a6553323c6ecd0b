"""Writers of the files: rows as JSON Lines and Parquet, a few in memory at a time, and a run's `errors.jsonl`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson

from winnow.server.distill import journal
from winnow.server.distill.export.columns import Column
from winnow.server.distill.export.schema import arrow_type
from winnow.server.distill.files import whole
from winnow.server.distill.records import Problem

Row = dict[str, Any]
ERRORS = "errors.jsonl"
ROW_GROUP = 4096
_LINE_ENDS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")


def json_line(body: Any) -> bytes:
    """Return one line of JSON with its end.

    U+0085, U+2028 and U+2029 are escaped, because some readers take them for line ends.
    """
    line = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return _LINE_ENDS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


class Writer(Protocol):
    """A file of rows; `rows` counts those written."""

    rows: int

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows, now or once enough of them are there."""
        ...


class JsonLines:
    """A writer of rows as objects, one per line."""

    def __init__(self, file: BinaryIO) -> None:
        self.rows = 0
        self._file = file

    def add(self, rows: Sequence[Row]) -> None:
        """Write the rows."""
        self._file.writelines(map(json_line, rows))
        self.rows += len(rows)


class Parquet:
    """A writer of rows of `columns`, a row group at a time."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column[Any]]) -> None:
        import pyarrow
        import pyarrow.parquet

        self.rows = 0
        self._waiting: list[Row] = []
        self._arrow = pyarrow
        self._schema = pyarrow.schema(
            [
                pyarrow.field(column.name, arrow_type(column.kind), metadata={"description": column.about})
                for column in columns
            ]
        )
        self._file = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, rows: Sequence[Row]) -> None:
        """Take the rows; they are written once a row group is full."""
        self._waiting += rows
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and the end of the file."""
        if self._waiting:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        arrays = [
            self._arrow.array([row[field.name] for row in self._waiting], type=field.type) for field in self._schema
        ]
        self._file.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self.rows += len(self._waiting)
        self._waiting.clear()


@contextlib.contextmanager
def json_lines(path: Path) -> Iterator[Writer]:
    """Open a JSON Lines file that appears when the block has ended without an exception."""
    with whole(path) as file:
        yield JsonLines(file)


@contextlib.contextmanager
def parquet(path: Path, columns: Sequence[Column[Any]]) -> Iterator[Writer]:
    """Open a Parquet file that appears when the block has ended without an exception."""
    with whole(path) as file, contextlib.closing(Parquet(file, columns)) as writer:
        yield writer


def write_errors(folder: Path) -> int:
    """Write the input lines without answers to a run's `errors.jsonl`, and return their number.

    A line, in input order, has `line` (over the whole input, from 1), `file` and `file_line`, `id` (or null)
    and `error` {`kind`, `code`, `message`}. The kind is `input` if the line is at fault, `failed` if every
    candidate failed.

    Raises:
        RunError: there is no journal, or the file cannot be written.
    """
    count = 0
    with whole(folder / ERRORS) as file:
        for entry in journal.read(folder):
            if isinstance(entry, Problem):
                error = {"kind": entry.kind, "code": entry.code, "message": entry.message}
                place = {"line": entry.line, "file": entry.file, "file_line": entry.file_line, "id": entry.id}
                file.write(json_line({**place, "error": error}))
                count += 1
    return count
