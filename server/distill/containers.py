"""Files of rows: their formats, told by name and first bytes, and their rows as streams."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from winnow.models.errors import BadLine, RunError
from winnow.server.distill import csv_rows, json_values, lines, tables
from winnow.server.distill.layouts import COLUMNS, KEYS
from winnow.server.distill.lines import CHUNK, Stream

Format = Literal["jsonl", "json", "csv", "text", "parquet"]
"""The rows of a file: lines of JSON, values of JSON (array or objects), records, lines, rows of a table."""
FORMATS: tuple[Format, ...] = get_args(Format)
Kind = Format | Literal["dataset"]
"""A format, or a folder that the `datasets` library saved."""
JSON = (".jsonl", ".ndjson", ".json")
CSV = (".csv", ".tsv")
ZIPPED = ".gz"
OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SUFFIXES = (*JSON, *CSV, *(f"{suffix}{ZIPPED}" for suffix in (*JSON, *CSV)), ".parquet")


Content = bytes | Mapping[str, Any] | BadLine
"""A value of JSON as bytes, a row of a table or of CSV as a mapping, or the reason why it cannot be read."""


class Part(NamedTuple):
    """A file of an input: its name in reports, where it is, and what its rows are."""

    file: str
    path: Path
    kind: Kind


def part_of(file: str, path: Path, format: Format | None) -> Part:
    """Return a file with what its rows are, if `format` does not say so: by its name, and for JSON its beginning."""
    name = path.name.lower().removesuffix(ZIPPED)
    if format is None and name.endswith(CSV):
        format = "csv"
    elif format is None and name.endswith(".parquet"):
        format = "parquet"
    elif format is None:
        with reading(file), _opened(path) as stream:
            format = "jsonl" if json_values.is_json_lines(stream.read(CHUNK)) else "json"
    return Part(file, path, format)


def _opened(path: Path) -> BufferedReader | gzip.GzipFile:
    return gzip.open(path) if path.suffix.lower() == ZIPPED else path.open("rb")


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn read errors into a `RunError` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise RunError(f"{name} is damaged or not whole; fetch or compress it again") from None
    except OSError as error:
        raise RunError(f"{name} cannot be read: {error.strerror or 'it is damaged or not whole'}") from None


def count(part: Part) -> int:
    """Return the number of rows that `contents` yields."""
    if part.kind in ("parquet", "dataset"):
        with reading(part.file):
            return tables.total(part.path, part.file)
    return sum(1 for _ in contents(part))


def contents(part: Part, *, all_columns: bool = False) -> Iterator[tuple[int, Content]]:
    """Yield each row with its line in the file; a blank line as b"", so that it is counted.

    A table's rows have the columns that layouts of prompts look at, or `all_columns`.
    """
    with reading(part.file):
        if part.kind in ("parquet", "dataset"):
            yield from enumerate(_table_rows(part, None if all_columns else COLUMNS), start=1)
            return
        with _opened(part.path) as stream:
            if stream.peek(2).startswith(OTHER_MARKS):
                raise RunError(f"{part.file} is UTF-16 text; save it as UTF-8")
            yield from _text_rows(stream, part)


def _text_rows(stream: Stream, part: Part) -> Iterator[tuple[int, Content]]:
    if part.kind == "json":
        yield from json_values.values(stream, part.file)
    elif part.kind == "csv":
        yield from csv_rows.records(stream, part.file)
    elif part.kind == "text":
        yield from enumerate(lines.texts(stream), start=1)
    else:
        yield from enumerate(lines.lines(stream), start=1)


def _table_rows(part: Part, columns: Sequence[str] | None) -> Iterator[Mapping[str, Any] | BadLine]:
    for row in tables.rows(part.path, part.file, KEYS, columns):
        yield BadLine("invalid_utf8", "the row holds a text that is not UTF-8") if row is None else row
