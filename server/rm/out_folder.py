"""The folder of a trained model: nothing half-written under a final name, and a run that goes on where it was killed.

While a run lasts, all of it is in the folder `.training`. What is finished is moved out of there file by file, whole,
`training.json` last: a folder that has it is finished.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from winnow.models.disk import sync
from winnow.models.errors import SettingsError, WinnowError

WORK = ".training"
FINISHED = "training.json"
PAGE = "training.html"
_PUBLISHING = "publishing"
"""A file in WORK, from before the first of the finished files is moved."""
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
"""Files that an earlier model must not leave behind."""


@dataclass(frozen=True, slots=True)
class OutFolder:
    """The folder `root`, which this process alone writes to."""

    root: Path

    @property
    def steps(self) -> Path:
        """The trainer's checkpoints."""
        return self.root / WORK / "steps"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a step to go on from."""
        return any(self.steps.glob("checkpoint-*"))

    @property
    def curve(self) -> Path:
        """The journal of the training curve."""
        return self.root / WORK / "curve.jsonl"

    @property
    def staged(self) -> Path:
        """The folder that the model is written to before it is published."""
        return self.root / WORK / "model"

    def begin_anew(self) -> None:
        """Drop an unfinished run."""
        shutil.rmtree(self.steps, ignore_errors=True)
        self.curve.unlink(missing_ok=True)

    def stage(self) -> Path:
        """Return the staged folder, empty."""
        (self.root / WORK / _PUBLISHING).unlink(missing_ok=True)
        shutil.rmtree(self.staged, ignore_errors=True)
        self.staged.mkdir(parents=True)
        return self.staged

    def publish(self) -> None:
        """Move what is staged to its final names, and end the run."""
        places = sorted(self.staged.rglob("*"))
        for place in places:
            sync(place)
        (self.root / FINISHED).unlink(missing_ok=True)
        (self.root / WORK / _PUBLISHING).touch()
        for pattern in _WEIGHTS:
            for old in self.root.glob(pattern):
                old.unlink()
        for place in sorted(self.staged.iterdir(), key=lambda place: place.name == FINISHED):
            target = self.root / place.name
            if target.is_dir():
                shutil.rmtree(target)
            place.replace(target)
        sync(self.root)
        self.clear_if_published()

    def clear_if_published(self) -> None:
        """Drop what a run left that was killed when all of its files had been moved."""
        if (self.root / FINISHED).exists() and (self.root / WORK / _PUBLISHING).exists():
            shutil.rmtree(self.steps, ignore_errors=True)  # first: it is large, and the mark must outlive it
            shutil.rmtree(self.root / WORK)


@contextlib.contextmanager
def opened(root: Path, init: str, needed: int, *, force: bool) -> Iterator[OutFolder]:
    """Make the folder, or take up what is in it; if the block is refused before it trained, the folder is as it was.

    `needed` are the bytes that the run will write at least, those of an unfinished one included. With `force` a
    finished model is replaced.

    Raises:
        SettingsError: the folder holds something else, cannot be written, or another process writes it.
    """
    folder = OutFolder(root)
    folder.clear_if_published()
    _require_own(root, init, force=force)
    missing = [path for path in (root, *root.parents) if not path.exists()]
    try:
        (root / WORK).mkdir(parents=True, exist_ok=True)
        lock = (root / WORK / "lock").open("ab")
    except OSError as error:
        _remove(missing)
        raise SettingsError(f"--out: {root} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"--out: another process trains in {root}") from None
        _require_own(root, init, force=force)  # again: another process may have finished since
        try:
            there = sum(path.stat().st_size for path in (root / WORK).rglob("*") if path.is_file())
            if (free := shutil.disk_usage(root).free) < needed - there:
                raise SettingsError(
                    f"--out: {root} has {_gib(free)} free; the run needs at least {_gib(needed - there)}"
                )
            yield folder
        except (WinnowError, ImportError):
            if not folder.steps.exists():
                shutil.rmtree(root / WORK, ignore_errors=True)
                _remove(missing)
            raise
        except OSError as error:
            if error.errno not in _CANNOT_WRITE:
                raise
            raise SettingsError(f"--out: {root} cannot be written: {error.strerror}") from error


def _require_own(root: Path, init: str, *, force: bool) -> None:
    """Check that there is nothing in the folder that is not of such a run."""
    try:
        root.resolve().name.encode()
    except UnicodeEncodeError:
        raise SettingsError("--out: the folder's name is the model's, and must be UTF-8") from None
    if root.exists() and not root.is_dir():
        raise SettingsError(f"--out: {root} is no folder")
    if Path(init).exists() and root.exists() and root.samefile(init):
        raise SettingsError("--out is the checkpoint that training begins with; name another folder")
    if not root.exists() or force:
        return
    if (root / FINISHED).exists():
        raise SettingsError(f"--out: {root} has a trained model; --force trains another in its place")
    if not (root / WORK).is_dir() and any(root.iterdir()):
        raise SettingsError(f"--out: {root} holds other files; name a new folder, or say --force")


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
