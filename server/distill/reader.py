"""Reading of inputs: JSON, CSV and text files (plain or gzip), Parquet, folders of those, `datasets` folders, and -.

An input is hashed and counted once when it is opened, then streamed, in bounded memory. What a file's rows are is
decided by its name and its first bytes, or by the user. The meaning of a row is not known here; see
`winnow.server.distill.parser`. Nothing is fetched from a network.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from winnow.models.errors import RunError
from winnow.server.distill import tables
from winnow.server.distill.containers import FORMATS, SUFFIXES, Content, Format, Part, contents, count, part_of, reading
from winnow.server.distill.files import whole
from winnow.server.distill.lines import CHUNK

STDIN = "-"
"""The path that means standard input."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the input.

    `line` is its number over the whole input, from 1: of the line, the element, the record or the row. Blank lines
    count but give no row. `file_line` is the line of `file` on which it begins, and a table's row its own number.
    """

    line: int
    file: str
    file_line: int
    content: Content


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
        """The kinds of the files, as one text."""
        return ", ".join(sorted({part.kind for part in self.parts}))

    @property
    def is_lines(self) -> bool:
        """Whether an input without rows is one without content: unlike an empty array, an empty file is a mistake."""
        return self.size == 0 or all(part.kind in ("jsonl", "text") for part in self.parts)

    def rows(self, *, all_columns: bool = False) -> Iterator[Row]:
        """Yield all rows in order; may be called again. A table's rows have the columns of prompts, or `all_columns`.

        Raises:
            RunError: a file is gone or damaged; the rows before the damage have been yielded.
        """
        line = 0
        for part in self.parts:
            for file_line, content in contents(part, all_columns=all_columns):
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
        return _source(STDIN, (part_of(STDIN, spool, format),))
    place, split = _place(path)
    with reading(path):
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


OTHERWISE = f", and -; --input-format says what a file of another name is: {', '.join(FORMATS)}"
"""The end of an error, for commands that read standard input and have that option."""
_WANTED = f"accepted are {', '.join(SUFFIXES)}, a folder of those, a folder that datasets.save_to_disk wrote{OTHERWISE}"


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
    return part_of(_name(path), path, format)


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
    with reading("standard input"), path.open("rb") as file:
        while chunk := stream.read(CHUNK):
            if chunk != file.read(len(chunk)):
                return False
        return file.tell() == 0 or not file.read(1)


def _source(name: str, parts: tuple[Part, ...]) -> Source:
    """Hash and count the parts."""
    sha256, size, total = hashlib.sha256(), 0, 0
    for part in parts:
        with reading(part.file):
            members = tables.members(part.path) if part.kind == "dataset" else [part.path]
            for member in members:
                length = member.stat().st_size
                if len(parts) > 1 or part.kind == "dataset":
                    sha256.update(f"{_name(member)}\0{length}\0".encode())
                with member.open("rb") as stream:
                    while chunk := stream.read(CHUNK):
                        sha256.update(chunk)
                size += length
        total += count(part)
    return Source(name, sha256.hexdigest(), size, total, parts)
