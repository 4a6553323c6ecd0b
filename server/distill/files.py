"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from winnow.models.errors import WinnowError


class RunError(WinnowError):
    """An offline run cannot begin, go on, or be read; the message says why and what would help."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write `path`'s new content to. It takes that name when the block ends well; else `path` stays as it was.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(
        f".{path.name}.part"
    )  # one name, so that what a killed process leaves is not left for ever
    try:
        file = temporary.open("ab")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino != temporary.stat().st_ino:
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):  # it is another's, or just was and has its final name now
            raise RunError(f"{path} is being written by another process") from None
        try:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from None
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in `folder` are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, content: bytes) -> None:
    """Write a small file whole.

    Raises:
        RunError: it cannot be written.
    """
    with whole(path) as file:
        file.write(content)
