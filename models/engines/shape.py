"""The sizes of a model of Llama's kind, from its config.json: parameters and KV cache. No weights are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from winnow.models.errors import CheckpointError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number in each precision."""

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions",),
}
"""Names of the sizes in the config.json of families older than Llama: GPT-2, BLOOM, Falcon."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes, as in its config.json: `heads` counts the query heads, `kv_heads` the cached ones."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    is_tied: bool = False
    """Whether the output matrix is the input embedding."""
    is_reward_model: bool = False

    @classmethod
    def llama2(
        cls, hidden: int, layers: int, heads: int, intermediate: int, vocabulary: int = 32_000, context: int = 4096
    ) -> Shape:
        """Return a policy's shape as in Llama 2 7B and 13B: every query head has its own key and value."""
        return cls(hidden, layers, heads, heads, hidden // heads, intermediate, vocabulary, context)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Return the shape that a config.json describes.

        Raises:
            CheckpointError: a size is missing or is not a positive integer.
        """

        def size(name: str, otherwise: int | None = None) -> int:
            given = (config.get(other) for other in (name, *OTHER_NAMES.get(name, ())))
            value = next((value for value in given if value is not None), otherwise)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(f"config.json: {name} is {value!r}, not a number from 1")
            return value

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        return cls(
            hidden=hidden,
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", max(1, hidden // heads)),
            intermediate=size("intermediate_size", 4 * hidden if "n_embd" in config else None),
            vocabulary=size("vocab_size"),
            context=size("max_position_embeddings", 2048),
            is_tied=bool(config.get("tie_word_embeddings")),
            is_reward_model="LlamaForSequenceClassification" in (config.get("architectures") or ()),
        )

    @property
    def matrices(self) -> int:
        """Numbers in the layers and the last norm: everything but the embedding and the output matrix."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        embedding = self.vocabulary * self.hidden
        head = self.hidden if self.is_reward_model else 0 if self.is_tied else embedding
        return embedding + self.matrices + head

    @property
    def cached(self) -> int:
        """Numbers in the KV cache for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint as one engine loads it: `weights` bytes in the precision `dtype`, for `context` tokens.

    `has_graphs` says that the engine keeps CUDA graphs, which take memory of their own.
    """

    name: str
    shape: Shape
    dtype: str
    weights: int
    context: int
    has_graphs: bool = False

    def on_each_of(self, cards: int) -> Model:
        """Return what each of `cards` holds of the model, by vLLM's tensor parallelism: layers are cut, not counted.

        Raises:
            CheckpointError: its attention heads cannot be shared out evenly.
        """
        shape = self.shape
        if shape.heads % cards or (shape.kv_heads % cards and cards % shape.kv_heads):
            raise CheckpointError(
                f"{self.name}: {shape.heads} attention heads, {shape.kv_heads} of them cached, cannot be shared out to "
                f"{cards} cards; choose another tensor_parallel"
            )
        cut = replace(
            shape,
            heads=shape.heads // cards,
            kv_heads=max(1, shape.kv_heads // cards),
            intermediate=math.ceil(shape.intermediate / cards),
        )
        return replace(self, shape=cut, weights=math.ceil(self.weights / cards))

    @property
    def kv_per_token(self) -> int:
        """Bytes of KV cache for one token."""
        return self.shape.cached * BYTES[self.dtype]
