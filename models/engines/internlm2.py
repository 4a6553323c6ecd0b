"""InternLM2, which transformers knows only by code in its repositories, as what it is: a Llama under other names.

Queries, keys and values are one matrix there, a group of query heads beside their key and value. vLLM has a class for
it, but needs a configuration; the reference needs Llama's tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, LlamaConfig

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "internlm2"
_NAMES = {
    "tok_embeddings": "embed_tokens",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}


class InternLM2Config(LlamaConfig):  # type: ignore[misc]
    """InternLM2's configuration; up to its context its dynamic RoPE is the plain one, which vLLM's is not."""

    model_type = MODEL_TYPE

    def __init__(self, **given: Any) -> None:
        for name in ("rope_scaling", "rope_parameters"):
            scaling = given.get(name) or {}
            if "dynamic" in (scaling.get("type"), scaling.get("rope_type")):
                given["rope_theta"] = given.get("rope_theta") or scaling.get("rope_theta") or 10000.0
                del given[name]
        super().__init__(**given)


def register() -> None:
    """Make InternLM2's configuration known to transformers and vLLM in this process."""
    AutoConfig.register(MODEL_TYPE, InternLM2Config, exist_ok=True)


def is_internlm2(folder: Path) -> bool:
    """Whether a checkpoint's folder holds an InternLM2."""
    path = folder / "config.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE


def llama_config(folder: Path) -> LlamaConfig:
    """Return the configuration of the Llama that an InternLM2 is."""
    return LlamaConfig(**{**InternLM2Config.from_pretrained(folder).to_dict(), "model_type": LlamaConfig.model_type})


def llama_tensors(
    config: LlamaConfig, names: Sequence[str], tensor: Callable[[str], torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the backbone's tensors under Llama's names, without `model.`; `tensor` returns InternLM2's by name."""
    groups = config.num_attention_heads // config.num_key_value_heads
    for name in names:
        if not name.startswith("model."):
            continue
        own = name.removeprefix("model.")
        if own.endswith("attention.wqkv.weight"):
            heads = tensor(name).view(config.num_key_value_heads, groups + 2, -1, config.hidden_size)
            layer = own.removesuffix("attention.wqkv.weight")
            parts = (heads[:, :groups], heads[:, groups], heads[:, groups + 1])
            for kind, part in zip("qkv", parts, strict=True):
                yield f"{layer}self_attn.{kind}_proj.weight", part.reshape(-1, config.hidden_size)
            continue
        for theirs, llamas in _NAMES.items():
            own = own.replace(f"{theirs}.", f"{llamas}.")
        yield own, tensor(name)
