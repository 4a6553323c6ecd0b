"""The folder a training run works in: whose run it is, and its checkpoints, whole at any moment.

A checkpoint is written beside the others, synced to the disk, and renamed: what has its name is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from winnow.models.disk import sync
from winnow.models.errors import AnotherRun
from winnow.models.training.examples import Example, Recipe

KEPT = 2
"""Checkpoints that are kept."""
_PREFIX = "checkpoint-"
_LITTLE = 1 << 20
"""Bytes that are free on a full disk, at most: part of what was written is deleted by then."""
_NOT_OF_THE_RESULT = {"save_seconds"}
"""Fields of a recipe that do not change the weights."""


@dataclasses.dataclass(frozen=True, slots=True)
class WorkFolder:
    """The folder `root` of one training run."""

    root: Path

    def claim(self, init: Path, examples: Sequence[Example], recipe: Recipe) -> None:
        """Write down whose folder it is, or check that it belongs to this very run.

        Raises:
            AnotherRun: it belongs to another one.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        names = {
            "checkpoint": _digest_of_folder(init),
            "examples": _digest_of_examples(examples),
            "recipe": json.dumps(
                {key: value for key, value in dataclasses.asdict(recipe).items() if key not in _NOT_OF_THE_RESULT}
            ),
        }
        file = self.root / "run.json"
        if file.exists():
            known = json.loads(file.read_text(encoding="utf-8"))
            if others := [name for name in names if known.get(name) != names[name]]:
                raise AnotherRun(
                    f"the work folder belongs to another run (of another: {', '.join(others)}); give the same as then, "
                    "or another work folder"
                )
            return
        if self.latest() is not None:
            raise AnotherRun("the work folder has checkpoints, but no run.json that says whose: give another one")
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
        sync(partial)
        partial.replace(file)
        sync(self.root)

    def latest(self) -> Path | None:
        """Return the last checkpoint, None if there is none."""
        return max(self._checkpoints(), key=_step, default=None)

    def write(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write the checkpoint of `step`, which `fill` writes to a folder, and delete the oldest ones."""
        partial = self.root / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with disk_errors(partial):
            fill(partial)
        for place in (*partial.rglob("*"), partial):
            sync(place)
        final = self.root / f"{_PREFIX}{step}"
        partial.rename(final)
        sync(self.root)
        doomed = self.root / "old"
        shutil.rmtree(doomed, ignore_errors=True)
        for old in sorted(self._checkpoints(), key=_step)[:-KEPT]:
            shutil.rmtree(old.rename(doomed))  # renamed first: half a checkpoint must not have a whole one's name

    def _checkpoints(self) -> list[Path]:
        return [folder for folder in self.root.glob(f"{_PREFIX}*") if folder.name.removeprefix(_PREFIX).isdecimal()]


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise what the libraries make of a disk that cannot be written as what it is.

    Raises:
        OSError: the disk is full, or fails.
    """
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not isinstance(error, SafetensorError) and "inline_container" not in str(error):
            raise
        number = errno.ENOSPC if shutil.disk_usage(folder).free < _LITTLE or "os error 28" in str(error) else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX))


def _digest_of_folder(folder: Path) -> str:
    """Return a digest of the files that a checkpoint is loaded from; a second for a gigabyte."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        digest.update(file.name.encode())
        with file.open("rb") as content:
            while block := content.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _digest_of_examples(examples: Sequence[Example]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for example in examples:
        labels = example.margin, example.chosen_label, example.rejected_label
        digest.update(repr((example.chosen, example.rejected, *labels)).encode())
    return digest.hexdigest()
