"""Tiny random checkpoints of real architectures, and tokenizers trained in memory; built without downloads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "The capital of France is Paris. Hello, how can I help you today? I cannot help with that.",
    "USER: hello ASSISTANT:Hello! BEGINNING OF CONVERSATION: Human: What is this? Assistant: safe unsafe Yes No",
    "def f(x):\n    return x + 1\n\n0123456789 naïve café 中文 🙂",
] * 4
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
)
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


def byte_level(
    template: str | None = LLAMA3, *, bos: bool = True, words: Sequence[str] = ("safe", "unsafe", "ĊĊ")
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as Llama 3's and Qwen's: control tokens, `words` as whole tokens."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|bos|>", "<|eos|>", "<|pad|>", "<|start|>", "<|end|>", "<|eot|>"],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken(word, normalized=False) for word in words if backend.token_to_id(word) is None])
    controls = ["<|start|>", "<|end|>", "<|eot|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>" if bos else None,
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        additional_special_tokens=controls,
    )
    tokenizer.chat_template = template
    return tokenizer


def checkpoint(
    folder: Path,
    model_type: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    causal: bool = False,
    seed: int = 0,
    **config: Any,
) -> Path:
    """A random model of `model_type` with its tokenizer, a classifier with one label unless it is `causal`."""
    settings = AutoConfig.for_model(
        model_type,
        **{
            **SMALL,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **({} if causal else {"num_labels": 1}),
            **config,
        },
    )
    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    model = kind.from_config(settings, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def edit_tensors(folder: Path, renamed: Mapping[str, str] | None = None, **added: torch.Tensor) -> None:
    """Rename tensors, and add others; a name that becomes empty is removed. In `added`, `__` stands for a dot."""
    path = folder / "model.safetensors"
    tensors = {(renamed or {}).get(name, name): value for name, value in load_file(path).items()}
    tensors |= {name.replace("__", "."): value for name, value in added.items()}
    save_file({name: value.contiguous() for name, value in tensors.items() if name}, path, {"format": "pt"})


def beaver(folder: Path, tokenizer: PreTrainedTokenizerFast, *, kind: str = "LlamaForScore", bias: float = 7.0) -> Path:
    """A checkpoint as safe-rlhf writes it: `score_head` with a bias, and a normaliser's statistics."""
    checkpoint(folder, "llama", tokenizer)
    edit_tensors(
        folder,
        {"score.weight": "score_head.weight"},
        score_head__bias=torch.tensor([bias]),
        normalizer__mean=torch.tensor([3.0]),
        normalizer__var=torch.tensor([5.0]),
        normalizer__count=torch.tensor([9]),
    )
    edit_config(folder, architectures=[kind], score_dim=1, do_normalize=False, id2label=None, label2id=None)
    return folder
