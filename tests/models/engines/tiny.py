"""Tiny random checkpoints of real architectures, and tokenizers trained in memory; built without downloads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
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


LLAMA3_NAMES = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA3_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Llama 3's way to cut a text into words, more or less: two newlines are one."""


def llama3() -> PreTrainedTokenizerFast:
    """A tokenizer with the names, the words and the template of Llama 3's."""
    backend = Backend(models.BPE())
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[*LLAMA3_NAMES, "<|pad|>"],
        show_progress=False,
    )
    backend.train_from_iterator([*CORPUS, *["assistant\n\n", "user\n\n", "system\n\n"] * 9], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=LLAMA3_NAMES[0],
        eos_token=LLAMA3_NAMES[1],
        pad_token="<|pad|>",
        additional_special_tokens=list(LLAMA3_NAMES[2:]),
    )
    start, end, eot = LLAMA3_NAMES[2:]
    tokenizer.chat_template = LLAMA3.replace("<|start|>", start).replace("<|end|>", end).replace("<|eot|>", eot)
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
    edit_config(folder, architectures=[kind], score_dim=1, bias=True, do_normalize=False, id2label=None, label2id=None)
    return folder


def gated(folder: Path, tokenizer: PreTrainedTokenizerFast, *, quantiles: int = 1, **config: Any) -> Path:
    """A checkpoint as ArmoRM's, or as QRM's with more than one quantile: five objectives, and a gate of two layers."""
    checkpoint(folder, "llama", tokenizer, causal=True)
    torch.manual_seed(1)
    objectives, hidden, width = 5, 24, 64
    sizes = [(hidden, width), (hidden, hidden), (objectives, hidden)]
    layers = {f"gating__layers__{layer}__weight": torch.randn(size) * 0.3 for layer, size in enumerate(sizes)}
    layers |= {f"gating__layers__{layer}__bias": torch.randn(size[0]) for layer, size in enumerate(sizes)}
    edit_tensors(
        folder,
        {"lm_head.weight": ""},
        regression_layer__weight=torch.randn(objectives * quantiles, width),
        reward_transform_matrix=torch.eye(objectives) + 0.3 * torch.randn(objectives, objectives),
        gating__logit_scale=torch.tensor([1.7]),
        **layers,
    )
    edit_config(
        folder,
        architectures=["LlamaForRewardModelWithGating"],
        auto_map={"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"},
        num_objectives=objectives,
        gating_hidden_dim=hidden,
        gating_n_hidden=2,
        gating_temperature=3,
        **({"num_quantiles": quantiles} if quantiles > 1 else {}),
        **config,
    )
    return folder


def internlm2(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A checkpoint as InternLM2's reward models: one matrix for queries, keys and values, `v_head`, a reward token."""
    torch.manual_seed(2)
    vocabulary, width, inner, head_dim, heads, kv_heads = len(tokenizer), 128, 96, 32, 4, 2
    shapes = {
        "model.tok_embeddings.weight": (vocabulary, width),
        "model.norm.weight": (width,),
        "v_head.weight": (1, width),
        "output.weight": (vocabulary, width),  # a causal model's, which a reward model may have kept
    }
    for layer in range(2):
        shapes |= {
            f"model.layers.{layer}.attention.wqkv.weight": ((heads + 2 * kv_heads) * head_dim, width),
            f"model.layers.{layer}.attention.wo.weight": (width, heads * head_dim),
            f"model.layers.{layer}.feed_forward.w1.weight": (inner, width),
            f"model.layers.{layer}.feed_forward.w2.weight": (width, inner),
            f"model.layers.{layer}.feed_forward.w3.weight": (inner, width),
            f"model.layers.{layer}.attention_norm.weight": (width,),
            f"model.layers.{layer}.ffn_norm.weight": (width,),
        }
    folder.mkdir(parents=True)
    tensors = {name: torch.randn(shape) * 0.2 + (len(shape) == 1) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["InternLM2ForRewardModel"],
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModel": "x.InternLM2ForRewardModel"},
        "model_type": "internlm2",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "rope_theta": 1000000,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "bias": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "reward_token_id": tokenizer.convert_tokens_to_ids("<|end|>"),
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(folder)
    return folder
