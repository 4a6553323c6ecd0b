"""Files that are written whole or not at all, and folders that a refused run leaves as they were."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from winnow.models.disk import sync
from winnow.models.errors import RunError, WinnowError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` if the block succeeds; otherwise `path` stays as it was.

    Raises:
        RunError: it cannot be written.
    """
    # A fixed name, so that the next process overwrites the leftover of a killed one.
    temporary = path.with_name(f".{path.name}.part")
    try:
        file = temporary.open("ab")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino != temporary.stat().st_ino:
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):  # another process writes it, or has just finished it
            raise RunError(f"{path} is being written by another process") from None
        try:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from None
        finally:
            temporary.unlink(missing_ok=True)


REFUSALS = (WinnowError, ImportError)
"""The errors of a run that could not begin: its input, the settings, an engine, or a missing package."""


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents. Those that were made here are removed if the block is refused and they are empty.

    Raises:
        RunError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder} cannot be made: {error.strerror}") from None
        yield
    except REFUSALS:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def undone(paths: Sequence[Path], keep: Callable[[], bool]) -> Iterator[None]:
    """Remove files and folders if the block is refused, unless there is something to `keep`."""
    try:
        yield
    except REFUSALS:
        if not keep():
            for path in paths:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        raise


def write(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    with whole(path) as file:
        file.write(content)
