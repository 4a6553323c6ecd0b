"""Tiny chat models to train from: random weights on the demo tokenizer, or on a byte-level one with a template."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from tests.models.byte_level import ship
from winnow.models import demo

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")


def llama2(folder: Path, *, labels: int | None = None, **settings: Any) -> Path:
    """A model on the demo tokenizer, which has Llama 2's format: a chat model, or a classifier of `labels`."""
    folder.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copyfile(demo.weights("policy") / name, folder / name)
    return _saved(folder, labels, {"vocab_size": 2048, "pad_token_id": 0} | settings)


def chatml(folder: Path, *, family: str = "ChatML", labels: int | None = None, **settings: Any) -> Path:
    """A model on a byte-level tokenizer with a template of its own."""
    ship(family, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return _saved(folder, labels, {"vocab_size": len(tokenizer)} | ids | settings)


def _saved(folder: Path, labels: int | None, settings: dict[str, Any]) -> Path:
    config = LlamaConfig(
        **{
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 256, **settings,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    if labels is None:
        model = LlamaForCausalLM(config)
    else:
        config.num_labels = labels
        model = LlamaForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder
