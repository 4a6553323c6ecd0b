"""Checkpoints that are loaded and saved again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from winnow.models.demo import ModelName, weights
from winnow.models.engines.checkpoint import inspect_policy, load_tokenizer
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import classifier
from winnow.models.training.checkpoints import load_policy, save


@pytest.mark.parametrize("name", ["policy", "safety-rm"])
def test_a_saved_checkpoint_equals_the_loaded_one(name: ModelName, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The weights that come with the project pass through float32 unchanged."""
    load = load_policy if name == "policy" else classifier.load
    write = save if name == "policy" else classifier.save
    before = load(weights(name))
    write(load(weights(name)), weights(name), tmp_path)
    (inspect_policy if name == "policy" else inspect_scorer)(str(tmp_path))
    after = load(tmp_path)
    assert after.config.to_diff_dict() == before.config.to_diff_dict()
    assert after.dtype == torch.float32
    for key, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[key]), key
    assert load_tokenizer(str(tmp_path), "policy").equals(tokenizer)
    # A card says what a person found out about a model: it is no part of the training.
    kept = {path.name for path in weights(name).iterdir()} - {"winnow-card.toml"}
    assert {path.name for path in tmp_path.iterdir()} == kept
