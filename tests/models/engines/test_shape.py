"""The sizes of Llama models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from winnow.models.engines.shape import Model, Shape
from winnow.models.errors import CheckpointError

LLAMA_2_7B = Shape.llama2(hidden=4096, layers=32, heads=32, intermediate=11_008)
LLAMA_3_8B = Shape(4096, 32, 32, 8, 128, 14_336, 128_256, 8192)


def test_a_llama_2_7b_has_the_papers_sizes() -> None:
    written_out = Shape(4096, 32, 32, 32, 128, 11_008, 32_000, 4096)
    assert written_out == LLAMA_2_7B
    assert LLAMA_2_7B.parameters == 6_738_415_616
    assert LLAMA_2_7B.matrices == LLAMA_2_7B.parameters - 2 * 32_000 * 4096
    model = Model("policy", LLAMA_2_7B, "bfloat16", 2 * LLAMA_2_7B.parameters, 4096)
    assert model.weights == pytest.approx(13.48e9, rel=1e-3)
    assert model.kv_per_token == 2**30 // 2048


def test_grouped_heads_and_tied_embeddings_are_counted() -> None:
    assert LLAMA_3_8B.parameters == 8_030_261_248
    assert Model("policy", LLAMA_3_8B, "bfloat16", 0, 8192).kv_per_token == 128 * 1024
    assert replace(LLAMA_3_8B, is_tied=True).parameters == 8_030_261_248 - 128_256 * 4096
    assert replace(LLAMA_3_8B, is_tied=True).matrices == LLAMA_3_8B.matrices


def test_a_reward_model_has_one_output() -> None:
    rm = replace(LLAMA_2_7B, is_reward_model=True)
    assert LLAMA_2_7B.parameters - rm.parameters == (32_000 - 1) * 4096
    assert rm.matrices == LLAMA_2_7B.matrices


CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 176,
    "vocab_size": 2048,
}


def test_a_config_is_read_with_its_defaults() -> None:
    assert Shape.of(CONFIG) == Shape(64, 2, 4, 4, 16, 176, 2048, 2048)
    grouped = Shape.of({**CONFIG, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True})
    assert (grouped.kv_heads, grouped.head_dim, grouped.is_tied) == (2, 32, True)
    assert Shape.of({**CONFIG, "architectures": ["LlamaForSequenceClassification"]}).is_reward_model


@pytest.mark.parametrize("name", CONFIG)
@pytest.mark.parametrize("value", [None, 0, -1, "many"])
def test_a_missing_or_wrong_size_is_named(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"{name} is {value!r}, not a number from 1"):
        Shape.of({**CONFIG, name: value})


def test_older_families_call_their_sizes_otherwise() -> None:
    config = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": 100, "n_inner": None}
    shape = Shape.of(config)
    assert (shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (64, 2, 4, 4, 16)
    assert (shape.intermediate, shape.context) == (256, 512)
