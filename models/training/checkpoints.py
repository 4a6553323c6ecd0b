"""Policies in the Hugging Face layout: Llama checkpoints, loaded in float32 to train or sample, saved in bfloat16."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM

from winnow.models.training.classifier import quiet

TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def load_policy(folder: Path) -> LlamaForCausalLM:
    """Return the policy in `folder`, in float32."""
    with quiet():
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def save(model: LlamaForCausalLM, tokenizer: Path, folder: Path) -> None:
    """Write bfloat16 safetensors, the configuration and the tokenizer's files to `folder`.

    `tokenizer` is the folder that has these files. `model` itself becomes bfloat16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
    )
    with quiet():
        model.to(torch.bfloat16).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
