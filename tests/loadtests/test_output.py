from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.output import reserved, write_whole


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("file", "it is a file"),
        ("file/below", "Not a directory"),
        ("taken", "result.json is a folder"),
        ("x" * 300, "too long"),
        ("/proc/none/below", "No such file"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, folder: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "result.json").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LoadTestError, match=words), reserved(tmp_path / folder):
        pytest.fail("the block must not run")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LoadTestError, match="No space left"), reserved(tmp_path / "new" / "deep"):
        pytest.fail("the block must not run")
    assert not list(tmp_path.iterdir())


def test_only_folders_that_hold_something_are_left(tmp_path: Path) -> None:
    with reserved(tmp_path / "a" / "b"):
        assert not list((tmp_path / "a" / "b").iterdir())
    assert not list(tmp_path.iterdir())
    with reserved(tmp_path / "a" / "b"):
        write_whole(tmp_path / "a" / "b" / "result.json", [b"1"])
    assert (tmp_path / "a" / "b" / "result.json").read_bytes() == b"1"


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "result.json"
    write_whole(path, [b"old"])
    with pytest.raises(LoadTestError, match="No space left"):
        write_whole(path, broken())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
