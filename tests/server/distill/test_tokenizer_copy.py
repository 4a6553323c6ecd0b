"""A run's copy of its policy's tokenizer."""

from __future__ import annotations

from pathlib import Path

from winnow.models import demo
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill import tokenizer_copy

POLICY = str(demo.weights("policy"))


def test_a_copy_gives_the_same_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer_copy.keep(tmp_path, POLICY)
    copy = tokenizer_copy.load(tmp_path)
    assert copy
    assert copy.equals(tokenizer)
    assert copy.encode(" Paris, 中文") == tokenizer.encode(" Paris, 中文")


def test_what_is_there_stays_and_what_is_missing_is_added(tmp_path: Path) -> None:
    """A copy that was cut short by `kill -9` is completed when the run goes on."""
    tokenizer_copy.keep(tmp_path, POLICY)
    files = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "tokenizer" / "config.json").write_bytes(b"{}")
    tokenizer_copy.keep(tmp_path, POLICY)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()} == {
        **files,
        "config.json": b"{}",
    }


def test_a_run_on_a_server_has_none(tmp_path: Path) -> None:
    assert tokenizer_copy.load(tmp_path) is None
