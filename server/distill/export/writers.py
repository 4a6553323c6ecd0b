"""Rows into files, a few at a time: JSON Lines and Parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic

from winnow.server.distill.export.columns import FIELDS, Column, T, json_line
from winnow.server.distill.export.sources import Entry
from winnow.server.distill.files import whole

ROW_GROUP = 4096


class JsonLines:
    """Writes the objects that `rows_of` makes of an entry, one a line."""

    def __init__(self, file: BinaryIO, rows_of: Callable[[Entry], Iterable[Any]]) -> None:
        self.rows = 0
        self._file = file
        self._rows_of = rows_of

    def add(self, entry: Entry) -> None:
        """Write the rows of `entry`."""
        for row in self._rows_of(entry):
            self._file.write(json_line(row))
            self.rows += 1


class Parquet(Generic[T]):
    """Writes the subjects that `subjects_of` finds in an entry as rows of `columns`, a row group at a time."""

    def __init__(
        self, file: BinaryIO, columns: Sequence[Column[T]], subjects_of: Callable[[Entry], Iterable[T]]
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

    def add(self, entry: Entry) -> None:
        """Take the rows of `entry`; they are written once there are enough."""
        self._waiting += self._subjects_of(entry)
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the end of the file."""
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
"""Takes the entries of a run, one by one, by `add`; `rows` counts what it has written."""


def _type(kind: str) -> Any:
    import pyarrow

    if kind not in FIELDS:
        return pyarrow.type_for_alias(kind)
    return pyarrow.list_(pyarrow.struct([(name, _type(inner)) for name, inner in FIELDS[kind].items()]))


@contextlib.contextmanager
def json_lines(path: Path, rows_of: Callable[[Entry], Iterable[Any]]) -> Iterator[Writer]:
    """A JSON Lines file that appears when the block ends well."""
    with whole(path) as file:
        yield JsonLines(file, rows_of)


@contextlib.contextmanager
def parquet(path: Path, columns: Sequence[Column[T]], subjects_of: Callable[[Entry], Iterable[T]]) -> Iterator[Writer]:
    """A Parquet file that appears when the block ends well; its fields carry their descriptions."""
    with whole(path) as file, contextlib.closing(Parquet(file, columns, subjects_of)) as writer:
        yield writer
