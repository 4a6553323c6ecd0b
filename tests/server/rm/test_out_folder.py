"""The folder of a trained model."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from winnow.models.errors import RunError, SettingsError
from winnow.server.rm.out_folder import FINISHED, WORK, OutFolder, opened


def stage(folder: Path, **files: str) -> None:
    for name, content in {**files, "training": "{}"}.items():
        path = folder / (FINISHED if name == "training" else name)
        path.write_text(content)


def test_what_is_finished_appears_whole_and_the_work_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with opened(out, "init", 0, force=False) as folder:
        stage(folder.stage(), weights="x")
        assert sorted(path.name for path in out.iterdir()) == [WORK]
        folder.publish()
    assert sorted(path.name for path in out.iterdir()) == [FINISHED, "weights"]


def test_a_killed_publication_is_taken_up(tmp_path: Path) -> None:
    """`training.json` comes last: without it the folder is unfinished, whatever else has been moved."""
    with opened(tmp_path / "out", "init", 0, force=False) as folder:
        staged = folder.stage()
        stage(staged, weights="x", card="y")
        (staged / "card").replace(folder.root / "card")
    with opened(tmp_path / "out", "init", 0, force=False) as folder:
        stage(folder.stage(), weights="x", card="y")
        folder.publish()
    assert (tmp_path / "out" / "weights").read_text() == "x"


def test_what_a_run_left_that_was_killed_after_its_last_file_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The checkpoints are gigabytes. An unfinished run beside an older model is another matter: it stays."""
    out, remove = tmp_path / "out", shutil.rmtree
    with opened(out, "init", 0, force=False) as folder:
        folder.steps.mkdir()
        stage(folder.stage(), weights="x")
        monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
        folder.publish()
    monkeypatch.setattr("shutil.rmtree", remove)
    assert folder.steps.exists()
    with pytest.raises(SettingsError, match="has a trained model"), opened(out, "init", 0, force=False):
        raise AssertionError
    assert sorted(path.name for path in out.iterdir()) == [FINISHED, "weights"]
    with opened(out, "init", 0, force=True) as folder:
        folder.steps.mkdir()
        folder.stage()
    with pytest.raises(SettingsError, match="has a trained model"), opened(out, "init", 0, force=False):
        raise AssertionError
    assert folder.steps.exists()


def test_an_earlier_model_leaves_no_weights_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", FINISHED, "notes.txt"):
        (out / name).write_text("old")
    with pytest.raises(SettingsError, match="--force trains another in its place"), opened(out, "i", 0, force=False):
        raise AssertionError
    with opened(out, "init", 0, force=True) as folder:
        assert (out / FINISHED).exists()  # until the new one is there
        staged = folder.stage()
        (staged / "model.safetensors").write_text("new")
        (staged / "additional").mkdir()
        (staged / "additional" / "x").write_text("new")
        stage(staged)
        folder.publish()
    names = sorted(path.name for path in out.iterdir())
    assert names == ["additional", "model.safetensors", "notes.txt", FINISHED]


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(RunError), opened(out, "init", 0, force=False):
        raise RunError("no data")
    assert not (tmp_path / "a").exists()


def test_a_run_that_trained_is_kept(tmp_path: Path) -> None:
    steps = OutFolder(tmp_path / "out").steps
    steps.mkdir(parents=True)
    with pytest.raises(RunError), opened(tmp_path / "out", "init", 0, force=False):
        raise RunError("no memory")
    assert steps.exists()


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("")
    (tmp_path / "init").mkdir()
    cases = [
        ("file", 0, "is no folder"),
        ("file/out", 0, "cannot be written: Not a directory"),
        ("full", 0, "holds other files"),
        ("init", 0, "is the checkpoint that training begins with"),
        ("out", 2**70, "free; the run needs at least"),
        ("out\udcff", 0, "must be UTF-8"),
    ]
    for name, needed, reason in cases:
        with (
            pytest.raises(SettingsError, match=reason),
            opened(tmp_path / name, str(tmp_path / "init"), needed, force=False),
        ):
            raise AssertionError
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_is_said_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="cannot be written: No space left on device"),
        opened(tmp_path / "out", "init", 0, force=False),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionError), opened(tmp_path / "out", "init", 0, force=False):
        raise ConnectionError


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "out", "init", 0, force=False) as folder,
        pytest.raises(SettingsError, match="another process trains in"),
        opened(tmp_path / "out", "init", 0, force=False),
    ):
        raise AssertionError
    assert folder.root.exists()


def test_a_run_that_finished_while_the_lock_was_taken_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    out = tmp_path / "out"
    monkeypatch.setattr("fcntl.flock", lambda *_: (out / FINISHED).write_text("{}"))
    with pytest.raises(SettingsError, match="has a trained model"), opened(out, "init", 0, force=False):
        raise AssertionError
