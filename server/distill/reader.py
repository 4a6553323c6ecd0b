"""Reading of inputs: JSON lines (plain or gzip), Parquet, folders of those, `datasets` folders on disk, standard input.

An input is hashed and counted once when it is opened, then streamed, in bounded memory. The meaning of a row is
not known here; see `winnow.server.distill.parser`. Nothing is fetched from a network.
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
from typing import IO, Any

from winnow.models.errors import BadLine, RunError
from winnow.server.distill import tables
from winnow.server.distill.files import whole

SHAPES = ("prompt", "messages", "conversations", "custom_id")
"""The keys of which a row has exactly one; `custom_id` is a line of an OpenAI batch."""
OPTIONS = ("id", "is_safety", "system", "category", "instruction")
ENVELOPE = ("method", "url", "body")
LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*LINES, *(f"{suffix}.gz" for suffix in LINES), ".parquet")
MAX_LINE_BYTES = 10_000_000
"""Most bytes of one line, without its line end."""
CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of text as bytes, a row of a table as a mapping, or the reason why it cannot be read.

    `line` counts from 1 over the whole input and `file_line` within `file`; blank lines count but give no row.
    """

    line: int
    file: str
    file_line: int
    content: bytes | Mapping[str, Any] | BadLine


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
    parts: tuple[tuple[str, Path], ...]
    """Each file's name in reports, and where it is."""

    def rows(self) -> Iterator[Row]:
        """Yield all rows in order; may be called again.

        Raises:
            RunError: a file is gone or damaged; the rows before the damage have been yielded.
        """
        line = 0
        for file, path in self.parts:
            for file_line, content in enumerate(_contents(path, file), start=1):
                line += 1
                if content != b"":
                    yield Row(line, file, file_line, content)


def open_source(path: str, spool: Path) -> Source:
    """Open a file, a folder, `FOLDER#SPLIT` of a `datasets` folder with several splits, or "-", standard input.

    A folder's files are read in the order of their names. Hidden files are ignored; anything else that is not
    an accepted file, including a folder within it, is refused rather than skipped. Standard input is JSON
    lines; it is kept in the file `spool`. If that exists already, standard input must be a terminal, empty, or
    give the same content again.

    Raises:
        RunError: there is nothing that can be read; the message says what can be.
    """
    if path == "-":
        _spool(spool)
        return _source("-", (("-", spool),))
    place, split = _place(path)
    with _reading(path):
        if not os.access(place, os.R_OK | (os.X_OK if place.is_dir() else 0)):
            raise RunError(f"{path} cannot be read: {'permission denied' if place.exists() else 'it does not exist'}")
        if place.is_file():
            return _source(_name(place), ((_name(place), _accepted(place)),))
        if not place.is_dir():
            raise RunError(f"{path} is neither a file nor a folder; pipe it in, and name the input -")
        if tables.is_dataset(place):
            folder, split = tables.split_of(place, split)
            name = f"{_name(place)}#{split}" if split else _name(place)
            return _source(name, ((name, folder),))
        if split:
            raise RunError(f"{place} was not saved by the datasets library; it has no splits to choose from")
        files = sorted(file for file in place.iterdir() if not file.name.startswith("."))
        if not files:
            raise RunError(f"{path} holds no files; {_WANTED}")
        return _source(_name(place), tuple((_name(file), _accepted(file)) for file in files))


def require_apart(path: str, out: Path) -> None:
    """Check that neither the input nor the output folder contains the other: a run must not overwrite its input.

    Raises:
        RunError: one does.
    """
    if path == "-":
        return
    source, target = _place(path)[0].resolve(), out.resolve()
    if source == target:
        raise RunError(f"the input and the output are the same, {path}; choose another --out")
    if source.is_relative_to(target):
        raise RunError(f"the input {path} lies in the output folder {out}; choose another --out")
    if target.is_relative_to(source):
        raise RunError(f"the output folder {out} lies in the input {path}; choose another --out")


_WANTED = f"accepted are {', '.join(SUFFIXES)}, a folder of those, a folder that datasets.save_to_disk wrote, and -"


def _place(path: str) -> tuple[Path, str]:
    """Return the path without its split, and the split that it names, or ""."""
    folder, _, split = path.rpartition("#")
    return (Path(folder), split) if folder and not os.path.lexists(path) else (Path(path), "")


def _name(path: Path) -> str:
    """Return the last part of a path, as text that can be stored."""
    return os.fsencode(path.name or path.resolve().name).decode(errors="replace")


def _accepted(path: Path) -> Path:
    if not (path.is_file() and path.name.lower().endswith(SUFFIXES)):
        raise RunError(f"{_name(path)} is not a file that is read; {_WANTED}")
    return path


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


def _source(name: str, parts: tuple[tuple[str, Path], ...]) -> Source:
    """Hash and count the parts."""
    sha256, size, total = hashlib.sha256(), 0, 0
    for file, path in parts:
        with _reading(file):
            members = tables.members(path) if path.is_dir() else [path]
            lines = 0
            for member in members:
                length = member.stat().st_size
                if len(parts) > 1 or path.is_dir():
                    sha256.update(f"{_name(member)}\0{length}\0".encode())
                with member.open("rb") as stream:
                    lines += _lines_in(stream, sha256)
                size += length
            total += _total(path, file, lines)
    return Source(name, sha256.hexdigest(), size, total, parts)


def _total(path: Path, file: str, lines: int) -> int:
    """Return the number of rows that `_contents` yields; `lines` is the number of lines of the stored bytes."""
    if tables.is_table(path):
        return tables.total(path, file)
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as stream:
            return _lines_in(stream)
    return lines


def _lines_in(stream: IO[bytes] | gzip.GzipFile, sha256: hashlib._Hash | None = None) -> int:
    """Count lines, including one without a line end, and hash the bytes."""
    lines, last = 0, b"\n"
    while chunk := stream.read(CHUNK):
        lines, last = lines + chunk.count(b"\n"), chunk[-1:]
        if sha256:
            sha256.update(chunk)
    return lines + (last != b"\n")


def _contents(path: Path, file: str) -> Iterator[bytes | Mapping[str, Any] | BadLine]:
    """Yield the content of each line or row; an empty line as b"", so that it is counted."""
    with _reading(file):
        if tables.is_table(path):
            for row in tables.rows(path, file, SHAPES, (*OPTIONS, *ENVELOPE)):
                yield BadLine("invalid_utf8", "the row holds a text that is not UTF-8") if row is None else row
        else:
            with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
                yield from _lines(stream)


def _lines(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes | BadLine]:
    """Yield lines without their ends; a line that is too long is never held whole."""
    most = MAX_LINE_BYTES + len(BOM) + len(b"\r\n")
    first = True
    while line := stream.readline(most):
        if len(line) == most and not line.endswith(b"\n"):
            while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
        line = line.removesuffix(b"\n").removesuffix(b"\r").removeprefix(BOM if first else b"")
        first = False
        if len(line) > MAX_LINE_BYTES:
            yield BadLine("line_too_long", f"the line has more than {MAX_LINE_BYTES} bytes; shorten or split it")
        else:
            yield line if line.strip() else b""
