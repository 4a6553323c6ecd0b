"""Writers of the files: rows as JSON Lines and Parquet, a few in memory at a time, and a run's `errors.jsonl`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic

import orjson

from winnow.server.distill import journal
from winnow.server.distill.export.columns import FIELDS, Column, T
from winnow.server.distill.export.sources import ExportEntry
from winnow.server.distill.files import whole
from winnow.server.distill.records import Problem

ERRORS = "errors.jsonl"
ROW_GROUP = 4096
_LINE_ENDS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")


def json_line(body: Any) -> bytes:
    """Return one line of JSON with its end.

    U+0085, U+2028 and U+2029 are escaped, because some readers take them for line ends.
    """
    line = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return _LINE_ENDS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


class JsonLines:
    """A writer of the objects that `rows_of` makes of an entry, one per line."""

    def __init__(self, file: BinaryIO, rows_of: Callable[[ExportEntry], Iterable[Any]]) -> None:
        self.rows = 0
        self._file = file
        self._rows_of = rows_of

    def add(self, entry: ExportEntry) -> None:
        """Write the rows of `entry`."""
        for row in self._rows_of(entry):
            self._file.write(json_line(row))
            self.rows += 1


class Parquet(Generic[T]):
    """A writer of the subjects that `subjects_of` finds in an entry, as rows of `columns`, a row group at a time."""

    def __init__(
        self, file: BinaryIO, columns: Sequence[Column[T]], subjects_of: Callable[[ExportEntry], Iterable[T]]
    ) -> None:
        import pyarrow
        import pyarrow.parquet

        self.rows = 0
        self._columns = columns
        self._subjects_of = subjects_of
        self._waiting: list[T] = []
        self._arrow = pyarrow
        self._schema = pyarrow.schema(
            [
                pyarrow.field(column.name, _type(column.kind), metadata={"description": column.about})
                for column in columns
            ]
        )
        self._file = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, entry: ExportEntry) -> None:
        """Take the rows of `entry`; they are written once a row group is full."""
        self._waiting += self._subjects_of(entry)
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and the end of the file."""
        if self._waiting:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        arrays = [
            self._arrow.array([column.value(subject) for subject in self._waiting], type=field.type)
            for column, field in zip(self._columns, self._schema, strict=True)
        ]
        self._file.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self.rows += len(self._waiting)
        self._waiting.clear()


Writer = JsonLines | Parquet[Any]
"""`add` takes the entries of a run one by one; `rows` counts the written rows."""


def _type(kind: str) -> Any:
    import pyarrow

    if kind == "ids":
        return pyarrow.list_(pyarrow.int64())
    if kind not in FIELDS:
        return pyarrow.type_for_alias(kind)
    return pyarrow.list_(pyarrow.struct([(name, _type(inner)) for name, inner in FIELDS[kind].items()]))


@contextlib.contextmanager
def json_lines(path: Path, rows_of: Callable[[ExportEntry], Iterable[Any]]) -> Iterator[Writer]:
    """Open a JSON Lines file that appears when the block has ended without an exception."""
    with whole(path) as file:
        yield JsonLines(file, rows_of)


@contextlib.contextmanager
def parquet(
    path: Path, columns: Sequence[Column[T]], subjects_of: Callable[[ExportEntry], Iterable[T]]
) -> Iterator[Writer]:
    """Open a Parquet file that appears when the block has ended without an exception."""
    with whole(path) as file, contextlib.closing(Parquet(file, columns, subjects_of)) as writer:
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
