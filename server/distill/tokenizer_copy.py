"""A run's copy of its policy's tokenizer: with it, exports are checked by their ids, and written as ids."""

from __future__ import annotations

from pathlib import Path

from winnow.models.engines.checkpoint import load_tokenizer, tokenizer_files
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill.files import write

FOLDER = "tokenizer"


def keep(run: Path, checkpoint: str) -> None:
    """Copy the files of the tokenizer of `checkpoint` into the folder `run`; what is there stays.

    Raises:
        CheckpointError: they cannot be read.
        RunError: they cannot be written.
    """
    folder = run / FOLDER
    for name, content in tokenizer_files(checkpoint).items():
        if not (folder / name).exists():
            folder.mkdir(exist_ok=True)
            write(folder / name, content)


def load(run: Path) -> Tokenizer | None:
    """Return the tokenizer that `run` keeps; None if it was sampled by a server, or by an older Winnow.

    Raises:
        CheckpointError: the copy is damaged.
    """
    return load_tokenizer(str(run / FOLDER), "policy") if (run / FOLDER / "tokenizer.json").exists() else None
