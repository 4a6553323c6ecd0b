"""A training's folder: whole checkpoints at any moment."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from winnow.models.training.work_folder import WorkFolder


def fill(text: str, folder: Path) -> None:
    (folder / "weights").write_text(text)
    (folder / "more").mkdir()
    (folder / "more" / "state").write_text(text)


def names(root: Path) -> set[str]:
    return {place.name for place in root.iterdir()}


def test_two_checkpoints_are_kept_and_the_latest_is_that_of_the_most_steps(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    assert folder.latest() is None
    for step in (8, 9, 10, 100):
        folder.write(step, lambda place, step=step: fill(str(step), place))
        assert folder.latest() == tmp_path / f"checkpoint-{step}"
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-100"}
    assert (tmp_path / "checkpoint-100" / "more" / "state").read_text() == "100"


def test_a_save_that_fails_anywhere_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the n-th sync; then the folder is used again."""
    sync, left = os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("no space left")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", failing)
    folder = WorkFolder(tmp_path)
    left = 100
    folder.write(1, lambda place: fill("1", place))
    for fails_at in range(4):
        left = fails_at
        with pytest.raises(OSError, match="no space"):
            folder.write(2, lambda place: fill("2", place))
        latest = folder.latest()
        assert latest == tmp_path / "checkpoint-1"
        assert (latest / "weights").read_text() == "1"
    left = 100
    folder.write(2, lambda place: fill("2", place))
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2"}


def test_what_a_killed_save_left_is_in_no_ones_way(tmp_path: Path) -> None:
    for name in ("partial", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("half")
    folder = WorkFolder(tmp_path)
    for step in (1, 2, 3):
        folder.write(step, lambda place: fill("x", place))
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-3"}


def test_a_full_disk_is_one_whatever_the_libraries_make_of_it(tmp_path: Path) -> None:
    """safetensors and torch raise errors of their own; another one is no failure of the disk."""
    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    broken = "[enforce fail at inline_container.cc:672] . unexpected pos 5312 vs 5204"
    cases = [
        (SafetensorError(full), OSError, os.strerror(errno.ENOSPC)),
        (RuntimeError(broken), OSError, os.strerror(errno.EIO)),
        (RuntimeError("no memory"), RuntimeError, "no memory"),
    ]
    for raised, kind, reason in cases:
        with pytest.raises(kind, match=reason):
            WorkFolder(tmp_path).write(1, lambda _, raised=raised: (_ for _ in ()).throw(raised))
    assert WorkFolder(tmp_path).latest() is None
