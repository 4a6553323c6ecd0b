"""Reading of inputs: JSON, CSV and text files (plain or gzip), Parquet, folders of those, `datasets` folders, and -.

An input is hashed and counted once when it is opened, then streamed, in bounded memory. What a file's rows are is
decided by its name and its first bytes, or by the user. The meaning of a row is not known here; see
`winnow.server.distill.parser`. Nothing is fetched from a network.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

from winnow.models.errors import BadLine, RunError
from winnow.server.distill import csv_rows, json_values, lines, tables
from winnow.server.distill.files import whole
from winnow.server.distill.layouts import COLUMNS, KEYS
from winnow.server.distill.lines import CHUNK, Stream

Format = Literal["jsonl", "json", "csv", "text", "parquet"]
"""What the rows of a file are: lines of JSON, values of JSON (array or objects), records, lines, rows of a table."""
FORMATS: tuple[Format, ...] = get_args(Format)
Kind = Format | Literal["dataset"]
"""A format, or a folder that the `datasets` library saved."""
STDIN = "-"
"""The path that means standard input."""
JSON = (".jsonl", ".ndjson", ".json")
CSV = (".csv", ".tsv")
ZIPPED = ".gz"
SUFFIXES = (*JSON, *CSV, *(f"{suffix}{ZIPPED}" for suffix in (*JSON, *CSV)), ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """A value of JSON as bytes, a row of a table or of CSV as a mapping, or the reason why it cannot be read.

    `line` is its number over the whole input, from 1: of the line, the element, the record or the row. Blank lines
    count but give no row. `file_line` is the line of `file` on which it begins, and a table's row its own number.
    """

    line: int
    file: str
    file_line: int
    content: bytes | Mapping[str, Any] | BadLine


class Part(NamedTuple):
    """A file of an input: its name in reports, where it is, and what its rows are."""

    file: str
    path: Path
    kind: Kind


@dataclass(frozen=True, slots=True)
class Source:
    """An input, as it was when it was opened.

    `name` has no folders. `sha256` is of the file's bytes; for several files, of each one's name, size and
    bytes. `size` is in bytes, as stored. `total` counts lines or rows, blank lines included, so no
    row's `line` is above it.
    """

    name: str
    sha256: str
    size: int
    total: int
    parts: tuple[Part, ...]

    @property
    def kind(self) -> str:
        """What the rows are, as text: the kinds of the files."""
        return ", ".join(sorted({part.kind for part in self.parts}))

    @property
    def is_lines(self) -> bool:
        """Whether an input without rows is one without content: unlike an empty array, an empty file is a mistake."""
        return self.size == 0 or all(part.kind in ("jsonl", "text") for part in self.parts)

    def rows(self) -> Iterator[Row]:
        """Yield all rows in order; may be called again.

        Raises:
            RunError: a file is gone or damaged; the rows before the damage have been yielded.
        """
        line = 0
        for part in self.parts:
            for file_line, content in _contents(part):
                line += 1
                if content != b"":
                    yield Row(line, part.file, file_line, content)


def open_source(path: str, spool: Path, format: Format | None = None) -> Source:
    """Open a file, a folder, `FOLDER#SPLIT` of a `datasets` folder with several splits, or "-", standard input.

    With a `format` every file is read as that, whatever its name. A folder's files are read in the order of their
    names. Hidden files are ignored; anything else that is not an accepted file, including a folder within it, is
    refused rather than skipped. Standard input is JSON if `format` does not say otherwise; it is kept in the file
    `spool`. If that exists already, standard input must be a terminal, empty, or give the same content again.

    Raises:
        RunError: there is nothing that can be read; the message says what can be.
    """
    if path == STDIN:
        _spool(spool)
        return _source(STDIN, (_part(STDIN, spool, format),))
    place, split = _place(path)
    with _reading(path):
        if not os.access(place, os.R_OK | (os.X_OK if place.is_dir() else 0)):
            raise RunError(f"{path} cannot be read: {'permission denied' if place.exists() else 'it does not exist'}")
        if place.is_file():
            return _source(_name(place), (_accepted(place, format),))
        if not place.is_dir():
            raise RunError(f"{path} is neither a file nor a folder; pipe it in, and name the input -")
        if format is None and tables.is_dataset(place):
            folder, split = tables.split_of(place, split)
            name = f"{_name(place)}#{split}" if split else _name(place)
            return _source(name, (Part(name, folder, "dataset"),))
        if split:
            raise RunError(f"{place} was not saved by the datasets library; it has no splits to choose from")
        files = sorted(file for file in place.iterdir() if not file.name.startswith("."))
        if not files:
            raise RunError(f"{path} holds no files; {_WANTED}")
        return _source(_name(place), tuple(_accepted(file, format) for file in files))


def require_apart(path: str, out: Path) -> None:
    """Check that neither the input nor the output folder contains the other: a run must not overwrite its input.

    Raises:
        RunError: one does.
    """
    if path == STDIN:
        return
    source, target = _place(path)[0].resolve(), out.resolve()
    if source == target:
        raise RunError(f"the input and the output are the same, {path}; choose another --out")
    if source.is_relative_to(target):
        raise RunError(f"the input {path} lies in the output folder {out}; choose another --out")
    if target.is_relative_to(source):
        raise RunError(f"the output folder {out} lies in the input {path}; choose another --out")


_WANTED = (
    f"accepted are {', '.join(SUFFIXES)}, a folder of those, a folder that datasets.save_to_disk wrote, and -; "
    f"--input-format says what a file of another name is: {', '.join(FORMATS)}"
)


def _place(path: str) -> tuple[Path, str]:
    """Return the path without its split, and the split that it names, or ""."""
    folder, _, split = path.rpartition("#")
    return (Path(folder), split) if folder and not os.path.lexists(path) else (Path(path), "")


def _name(path: Path) -> str:
    """Return the last part of a path, as text that can be stored."""
    return os.fsencode(path.name or path.resolve().name).decode(errors="replace")


def _accepted(path: Path, format: Format | None) -> Part:
    if not (path.is_file() and (format or path.name.lower().endswith(SUFFIXES))):
        raise RunError(f"{_name(path)} is not a file that is read; {_WANTED}")
    return _part(_name(path), path, format)


def _part(file: str, path: Path, format: Format | None) -> Part:
    """Return a file with what its rows are, if `format` does not say so: by its name, and for JSON its beginning."""
    name = path.name.lower().removesuffix(ZIPPED)
    if format is None and name.endswith(CSV):
        format = "csv"
    elif format is None and name.endswith(".parquet"):
        format = "parquet"
    elif format is None:
        with _reading(file), _opened(path) as stream:
            format = "jsonl" if json_values.is_json_lines(stream.read(CHUNK)) else "json"
    return Part(file, path, format)


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if path.suffix.lower() == ZIPPED else path.open("rb")


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn read errors into a `RunError` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise RunError(f"{name} is damaged or not whole; fetch or compress it again") from None
    except OSError as error:
        raise RunError(f"{name} cannot be read: {error.strerror or 'it is damaged or not whole'}") from None


def _spool(spool: Path) -> None:
    if spool.exists():
        if sys.stdin is not None and not sys.stdin.isatty() and not _same(sys.stdin.buffer, spool):
            raise RunError("standard input is not what this run began with; give the same, or choose another --out")
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise RunError("there is nothing on standard input; pipe prompts into it, or name a file")
    with whole(spool) as file:
        while chunk := sys.stdin.buffer.read(CHUNK):
            file.write(chunk)


def _same(stream: IO[bytes], path: Path) -> bool:
    """Whether the stream has the content of the file; an empty stream, as a service has, counts as equal."""
    with _reading("standard input"), path.open("rb") as file:
        while chunk := stream.read(CHUNK):
            if chunk != file.read(len(chunk)):
                return False
        return file.tell() == 0 or not file.read(1)


def _source(name: str, parts: tuple[Part, ...]) -> Source:
    """Hash and count the parts."""
    sha256, size, total = hashlib.sha256(), 0, 0
    for part in parts:
        with _reading(part.file):
            members = tables.members(part.path) if part.kind == "dataset" else [part.path]
            for member in members:
                length = member.stat().st_size
                if len(parts) > 1 or part.kind == "dataset":
                    sha256.update(f"{_name(member)}\0{length}\0".encode())
                with member.open("rb") as stream:
                    while chunk := stream.read(CHUNK):
                        sha256.update(chunk)
                size += length
        total += _total(part)
    return Source(name, sha256.hexdigest(), size, total, parts)


def _total(part: Part) -> int:
    """Return the number of rows that `_contents` yields."""
    if part.kind in ("parquet", "dataset"):
        with _reading(part.file):
            return tables.total(part.path, part.file)
    return sum(1 for _ in _contents(part))


def _contents(part: Part) -> Iterator[tuple[int, bytes | Mapping[str, Any] | BadLine]]:
    """Yield each row with its line in the file; a blank line as b"", so that it is counted."""
    with _reading(part.file):
        if part.kind in ("parquet", "dataset"):
            yield from enumerate(_table_rows(part), start=1)
            return
        with _opened(part.path) as stream:
            yield from _text_rows(stream, part)


def _text_rows(stream: Stream, part: Part) -> Iterator[tuple[int, bytes | Mapping[str, Any] | BadLine]]:
    if part.kind == "json":
        yield from json_values.values(stream, part.file)
    elif part.kind == "csv":
        yield from csv_rows.records(stream, part.file)
    elif part.kind == "text":
        yield from enumerate(lines.texts(stream), start=1)
    else:
        yield from enumerate(lines.lines(stream), start=1)


def _table_rows(part: Part) -> Iterator[Mapping[str, Any] | BadLine]:
    for row in tables.rows(part.path, part.file, KEYS, COLUMNS):
        yield BadLine("invalid_utf8", "the row holds a text that is not UTF-8") if row is None else row
