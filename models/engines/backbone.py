"""A model's backbone as its files describe it: every layer is there, in the sizes that config.json asks for.

What is missing or misshapen would fail minutes later, in an engine's process. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from winnow.models.engines.heads import BACKBONE, EMBEDDINGS, Shapes
from winnow.models.engines.shape import Shape
from winnow.models.errors import CheckpointError

UNIFORM = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "internlm2")
"""Model types whose layers are all alike, and called like Llama's or InternLM2's."""
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks)\.(\d+)\.(.+)")
_OWN_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("mistral", "qwen2"), ("num_key_value_heads",)),
    **dict.fromkeys(("gemma", "gemma2", "qwen3"), ("num_key_value_heads", "head_dim")),
}
"""Sizes for which transformers has numbers of its own by model type, where config.json leaves them out."""
_ATTENTION_BIASES = ("q_proj.bias", "qkv_proj.bias", "wqkv.bias")
_NORMS = ("norm.weight", "model.norm.weight")


def require_backbone(config: Mapping[str, Any], shapes: Shapes) -> None:
    """Check the sizes in a decoder's config.json, and its tensors by them, if there are any here.

    Raises:
        CheckpointError: a size is none, or a tensor is missing or misshapen.
    """
    if not shapes:
        return
    shape = Shape.of(config)
    for name, stored in shapes.items():
        if name.endswith(EMBEDDINGS) and list(stored) != [shape.vocabulary, shape.hidden]:
            raise CheckpointError(
                f"{name} is {list(stored)}, but its config asks for [{shape.vocabulary}, {shape.hidden}]"
            )
        if name.endswith(".attention.wqkv.bias"):
            raise CheckpointError(f"it has {name}: an InternLM2 with biases, which vLLM's does not honour")
    # What quantises a model may leave out layers, and packs numbers into other shapes.
    if config.get("model_type") not in UNIFORM or config.get("quantization_config"):
        _require_some_of_each(shape.layers, shapes)
        return
    backbone = {name: stored for name, stored in shapes.items() if name.startswith(BACKBONE)}
    require_layers(shape.layers, backbone)
    for kind, found in (
        ("embed_tokens.weight", any(name.endswith(EMBEDDINGS) for name in backbone)),
        ("norm.weight", any(name in backbone for name in _NORMS)),
    ):
        if not found:
            raise CheckpointError(f"no tensor model.{kind}; the checkpoint is not complete")
    _require_biases(config, backbone)
    _require_sizes(shape, backbone, has_heads=_tells_heads(config))


def unset_biases(config: Mapping[str, Any], shapes: Shapes) -> tuple[str, ...]:
    """Return `bias` where config.json has it and no layer has one: safe-rlhf means its head, vLLM's Llama every layer.

    vLLM would make biases up of whatever is in memory.
    """
    has_some = any(name.startswith(BACKBONE) and name.endswith(_ATTENTION_BIASES) for name in shapes)
    return tuple(name for name in ("bias", "qkv_bias") if config.get(name) and shapes and not has_some)


def require_layers(layers: int, shapes: Shapes, optional: Container[str] = ()) -> None:
    """Check that `shapes` has so many layers, all with the tensors of the last one; some may lack what is `optional`.

    Raises:
        CheckpointError: one is missing or misshapen, or there are more layers.
    """
    found: dict[int, dict[str, tuple[str, list[int]]]] = {}
    for name, stored in shapes.items():
        if match := _LAYER.search(name):
            found.setdefault(int(match[1]), {})[match[2]] = (name, list(stored))
    if (missing := next((layer for layer in range(layers) if layer not in found), None)) is not None:
        raise CheckpointError(f"no tensor of layer {missing}; the checkpoint is not complete")
    if len(found) > layers:
        raise CheckpointError(f"it has layers.{max(found)}, but its config asks for {layers} layers")
    everything = {part: told for layer in found.values() for part, told in layer.items()}
    for number, layer in sorted(found.items()):
        for part, (name, stored) in everything.items():
            if part not in layer and part not in optional:
                raise CheckpointError(f"layer {number} has no {part}, as another has; the checkpoint is not complete")
            if part in layer and layer[part][1] != stored:
                raise CheckpointError(f"{layer[part][0]} is {layer[part][1]}, but {name} is {stored}")


def _require_some_of_each(layers: int, shapes: Shapes) -> None:
    found = {int(match[1]) for name in shapes if (match := _LAYER.search(name))}
    if (missing := next((layer for layer in range(layers) if layer not in found), None)) is not None:
        raise CheckpointError(f"no tensor of layer {missing}; the checkpoint is not complete")


def _require_biases(config: Mapping[str, Any], shapes: Shapes) -> None:
    """Check that layers have biases where the config says so, and nowhere else: engines drop them, or make them up."""
    if config["model_type"] in ("qwen2", "internlm2"):  # the one always has them; the other's are refused above
        return
    for part, setting in ((".self_attn.", "attention_bias"), (".mlp.", "mlp_bias")):
        found = next((name for name in shapes if part in name and name.endswith("_proj.bias")), None)
        if found and not config.get(setting):
            raise CheckpointError(f"it has {found}, but config.json does not say {setting}")
        if config.get(setting) and not found:
            raise CheckpointError(f"config.json has {setting}, but no layer has one; the checkpoint is not complete")


def _tells_heads(config: Mapping[str, Any]) -> bool:
    """Whether a config.json has all sizes of the heads, or leaves out those that are the same for every family."""
    return all(config.get(name) for name in _OWN_DEFAULTS.get(config["model_type"], ()))


def _require_sizes(shape: Shape, shapes: Shapes, *, has_heads: bool) -> None:
    """Check the matrices of a layer; the layers are alike."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = {
        "q_proj.weight": [queries, shape.hidden],
        "k_proj.weight": [keys, shape.hidden],
        "v_proj.weight": [keys, shape.hidden],
        "qkv_proj.weight": [queries + 2 * keys, shape.hidden],
        "wqkv.weight": [queries + 2 * keys, shape.hidden],
        "o_proj.weight": [shape.hidden, queries],
        "wo.weight": [shape.hidden, queries],
    }
    sizes = {
        **(attention if has_heads else {}),
        "gate_proj.weight": [shape.intermediate, shape.hidden],
        "up_proj.weight": [shape.intermediate, shape.hidden],
        "down_proj.weight": [shape.hidden, shape.intermediate],
    }
    for name, stored in shapes.items():
        asked = sizes.get(".".join(name.split(".")[-2:]))
        if asked and list(stored) != asked:
            raise CheckpointError(f"{name} is {list(stored)}, but its config asks for {asked}")
