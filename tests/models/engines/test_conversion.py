"""Pickled weights to safetensors: the same tensors, and nothing but tensors."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.models.engines import tiny
from winnow.models.engines.conversion import convert
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.errors import CheckpointError
from winnow.server.cli.main import app


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "beaver-7b-v1.0-cost"
    return tiny.beaver(tmp_path_factory.mktemp("built") / name, tiny.byte_level(None), kind="LlamaModelForScore")


@pytest.fixture
def source(built: Path, tmp_path: Path) -> Path:
    """A checkpoint whose weights are one pickle."""
    folder = Path(shutil.copytree(built, tmp_path / "in"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_converted_checkpoint_is_served_as_it_was(built: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / built.name
    files = convert(source, target)
    assert equal(read(target), read(built))
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(files)
    assert inspect_scorer(str(target)).card.name == "beaver-cost"


def test_shards_and_a_head_beside_them(built: Path, source: Path, tmp_path: Path) -> None:
    whole = read(built)
    (source / "pytorch_model.bin").unlink()
    head = {name: value for name, value in whole.items() if name.startswith("score_head")}
    rest = [name for name in whole if name not in head]
    shards = {"pytorch_model-1.bin": rest[::2], "pytorch_model-2.bin": rest[1::2]}
    for name, tensors in shards.items():
        torch.save({tensor: whole[tensor] for tensor in tensors}, source / name)
    torch.save(head, source / "value_head.bin")
    index = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (source / "pytorch_model.bin.index.json").write_text(f'{{"weight_map": {index}}}'.replace("'", '"'))
    target = tmp_path / built.name
    convert(source, target)
    assert equal(read(target), whole)
    assert not (target / "pytorch_model.bin.index.json").exists()
    assert inspect_scorer(str(target)).head.bias == "score_head.bias"


def test_tensors_that_share_memory_and_a_trainers_wrapper(built: Path, source: Path, tmp_path: Path) -> None:
    whole = read(built)
    row = torch.arange(8.0)
    shared = {**{f"module.{name}": value for name, value in whole.items()}, "a": row[:4], "b": row[2:]}
    torch.save({"state_dict": shared}, source / "pytorch_model.bin")
    convert(source, tmp_path / "out")
    assert equal(read(tmp_path / "out"), {**whole, "a": row[:4], "b": row[2:]})


class Harmful:
    """A pickle that runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"a": Harmful()}), "holds more than weights, which is not run"),
        (b"", "is damaged, or holds more"),
        (b"PK\x03\x04nonsense", "is damaged, or holds more"),
        ({"a": torch.ones(2), "epoch": 3}, "holds 'epoch', which is no tensor"),
        ([torch.ones(2)], "holds no tensors by name"),
    ],
    ids=["code", "empty", "torn", "a number", "a list"],
)
def test_what_is_not_understood_is_refused_and_nothing_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = source / "pytorch_model.bin"
    if isinstance(content, bytes):
        weights.write_bytes(content)
    else:
        torch.save(content, weights)
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out")])
    assert done.exit_code == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_empty_or_has_nothing_to_convert(built: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="in exists and is not an empty folder"):
        convert(source, source)
    with pytest.raises(CheckpointError, match="there is nothing to convert"):
        convert(built, tmp_path / "out")
    (source / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        convert(source, tmp_path / "out")
