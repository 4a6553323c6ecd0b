"""The folder of a result: checked before the first request, and files in it that are whole or absent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from winnow.loadtests.errors import LoadTestError

FILES = ("result.json", "requests.jsonl", "report.html")
PROBE_BYTES = 1 << 16


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Create a folder that can be written for the length of the block; if it is empty then, remove it again.

    Raises:
        LoadTestError: it cannot be created, or no file can be written there; nothing is left behind.
    """
    made: list[Path] = []
    try:
        try:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            _probe(folder)
        except OSError as error:
            raise _unwritable(folder, error) from None
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty, or never made
                path.rmdir()


def _probe(folder: Path) -> None:
    """Write a file and remove it, so that a full disk or a read-only one is found."""
    for name in FILES:
        if (folder / name).is_dir():
            raise LoadTestError(f"{folder / name} is a folder, so no such file can be written; name another --out")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".loadtest-") as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _unwritable(folder: Path, error: OSError) -> LoadTestError:
    reason = "it is a file, not a folder" if isinstance(error, FileExistsError) else error.strerror or str(error)
    return LoadTestError(f"{folder} cannot be written: {reason}; name another folder with --out")


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that appears, or replaces an older one, only when it is whole; its folder is made if need be.

    Raises:
        LoadTestError: it cannot be written; an older file is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.writelines(pieces)
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    except OSError as error:
        raise LoadTestError(f"{path} cannot be written: {error.strerror or error}") from None
