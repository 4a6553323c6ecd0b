"""Flushing to the disk, so that what has been written outlasts a crash."""

from __future__ import annotations

import os
from pathlib import Path


def sync(place: Path) -> None:
    """Flush a file, or the names in a folder, to the disk.

    Raises:
        OSError: the disk does not take it.
    """
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
