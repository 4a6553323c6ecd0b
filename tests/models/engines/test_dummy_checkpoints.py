"""Checkpoints without weights, which the server accepts if it needs no weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from winnow.models import demo
from winnow.models.engines.checkpoint import describe, inspect_policy, load_tokenizer
from winnow.models.engines.dummy_checkpoints import SHAPES, write_all
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.errors import CheckpointError


@pytest.mark.parametrize("name", SHAPES)
def test_the_server_reads_them(name: str, tmp_path: Path) -> None:
    folders = write_all(tmp_path, SHAPES[name], demo.weights("policy"))
    for role, folder in folders.items():
        inspect = inspect_policy if role == "policy" else inspect_scorer
        inspect(str(folder), needs_weights=False)
        with pytest.raises(CheckpointError, match="safetensors"):
            inspect(str(folder))
        assert load_tokenizer(str(folder), "policy").eos_id == 2


@pytest.mark.parametrize(("name", "billions"), [("llama-2-7b", 6.738), ("llama-2-13b", 13.016)])
def test_they_have_the_published_sizes(name: str, billions: float, tmp_path: Path) -> None:
    shape = SHAPES[name]
    folder = write_all(tmp_path, shape, demo.weights("policy"))["policy"]
    model = describe(str(folder), "policy", "policy", "bfloat16")
    assert model.shape.parameters / 1e9 == pytest.approx(billions, abs=1e-3)
    assert model.shape == shape


def test_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "winnow.models.engines.dummy_checkpoints", "tiny", str(tmp_path)]
    done = subprocess.run(
        [*command, "--tokenizer", str(demo.weights("policy"))], capture_output=True, text=True, check=True
    )
    assert [Path(line).name for line in done.stdout.splitlines()] == ["policy", "safety-rm", "helpfulness-rm"]
    inspect_policy(str(tmp_path / "policy"), needs_weights=False)
