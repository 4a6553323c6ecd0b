"""A backbone that is not whole, or not of its config's sizes, is refused before an engine starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from winnow.models.engines.backbone import require_backbone, require_layers, unset_biases
from winnow.models.errors import CheckpointError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 12,
    "vocab_size": 20,
}
LAYER = {
    "self_attn.q_proj.weight": [8, 8],
    "self_attn.k_proj.weight": [4, 8],
    "self_attn.o_proj.weight": [8, 8],
    "mlp.up_proj.weight": [12, 8],
    "input_layernorm.weight": [8],
}
SHAPES = {
    "model.embed_tokens.weight": [20, 8],
    "model.norm.weight": [8],
    **{f"model.layers.{layer}.{name}": shape for layer in range(2) for name, shape in LAYER.items()},
}
Shapes = dict[str, Any]


def without(name: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {key: shape for key, shape in shapes.items() if key != name}


def reshaped(name: str, shape: list[int]) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {**shapes, name: shape}


def test_a_whole_backbone_passes() -> None:
    require_backbone(CONFIG, SHAPES)
    require_backbone(CONFIG, {**SHAPES, "gating.layers.7.weight": [1]})


@pytest.mark.parametrize("name", SHAPES)
def test_each_tensor_that_is_missing_is_told(name: str) -> None:
    """Such checkpoints once failed a minute later, in the engine's process, or after the policy had started."""
    with pytest.raises(CheckpointError, match="not complete"):
        require_backbone(CONFIG, without(name)(SHAPES))


@pytest.mark.parametrize(
    ("config", "change", "reason"),
    [
        ({}, reshaped("model.layers.1.mlp.up_proj.weight", [11, 8]), "layers.1.mlp.up_proj.weight is "),
        ({}, reshaped("model.embed_tokens.weight", [21, 8]), "its config asks for [20, 8]"),
        ({}, reshaped("model.layers.2.mlp.up_proj.weight", [12, 8]), "it has layers.2, but its config asks for 2"),
        ({"num_attention_heads": 4}, dict, "q_proj.weight|k_proj.weight"),
        ({"num_key_value_heads": 2}, dict, "k_proj.weight is [4, 8], but its config asks for [8, 8]"),
        ({"intermediate_size": 13}, dict, "up_proj.weight is [12, 8], but its config asks for [13, 8]"),
        ({"num_hidden_layers": "2"}, dict, "num_hidden_layers is '2', not a number from 1"),
        ({"num_hidden_layers": 3}, dict, "no tensor of layer 2"),
    ],
)
def test_sizes_that_contradict_the_config_are_told(
    config: Shapes, change: Callable[[Shapes], Shapes], reason: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_backbone({**CONFIG, **config}, change(SHAPES))
    assert any(part in str(caught.value) for part in reason.split("|"))


def test_heads_that_a_familys_own_default_tells_are_not_guessed() -> None:
    told = {**CONFIG, "model_type": "mistral"}
    require_backbone({**told, "num_key_value_heads": None}, SHAPES)
    with pytest.raises(CheckpointError, match="k_proj"):
        require_backbone({**told, "num_key_value_heads": 2}, SHAPES)


BIASES = {f"model.layers.{layer}.self_attn.{name}_proj.bias": [8] for layer in range(2) for name in ("q", "o")}


def test_biases_are_where_the_config_says() -> None:
    require_backbone({**CONFIG, "attention_bias": True}, {**SHAPES, **BIASES})
    with pytest.raises(CheckpointError, match=r"config.json does not say attention_bias"):
        require_backbone(CONFIG, {**SHAPES, **BIASES})
    with pytest.raises(CheckpointError, match=r"config.json has mlp_bias, but no layer has one"):
        require_backbone({**CONFIG, "mlp_bias": True}, SHAPES)


def test_a_heads_bias_is_not_taken_for_one_of_every_layer() -> None:
    """Beaver's config.json has `bias`, of its head; vLLM's Llama made biases up for all layers."""
    assert unset_biases({**CONFIG, "bias": True}, SHAPES) == ("bias",)
    assert unset_biases({**CONFIG, "qkv_bias": True}, SHAPES) == ("qkv_bias",)
    assert not unset_biases({**CONFIG, "bias": False}, SHAPES)
    assert not unset_biases({**CONFIG, "bias": True}, {**SHAPES, **BIASES})
    assert not unset_biases({**CONFIG, "bias": True}, {}), "nothing is known of tensors that are not here"


def test_packed_numbers_have_shapes_of_their_own() -> None:
    packed = reshaped("model.layers.1.mlp.up_proj.weight", [48, 1])(SHAPES)
    require_backbone({**CONFIG, "quantization_config": {"quant_method": "bitsandbytes"}}, packed)


def test_a_tensor_that_a_family_leaves_out_is_not_missed() -> None:
    shapes = {"layers.0.mlp.weight": [1], "layers.1.mlp.weight": [1], "layers.1.attn_norm.weight": [1]}
    require_layers(2, shapes, ("attn_norm.weight",))
    with pytest.raises(CheckpointError, match=r"layer 0 has no attn_norm.weight"):
        require_layers(2, shapes)
