"""Heads of reward models: which tensors of a checkpoint make the score, and how.

A kind of head is a class in a module here: how it is found among a checkpoint's tensors, what the engine computes of
hidden vectors, what the reference computes, and how the score is made of the engine's numbers. A new kind is a module
and its row in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from winnow.models.cards import Card
from winnow.models.cards.card import Adapter
from winnow.models.engines.heads.base import (
    BACKBONE,
    DROPPED,
    EMBEDDINGS,
    Head,
    Loaded,
    Shapes,
    architecture,
    is_classifier,
)
from winnow.models.engines.heads.gated import GatedHead
from winnow.models.engines.heads.labels import LabelHead
from winnow.models.engines.heads.linear import LinearHead, is_output_matrix
from winnow.models.errors import CheckpointError

__all__ = (
    "BACKBONE", "DROPPED", "EMBEDDINGS", "PLAIN", "GatedHead", "Head", "LabelHead", "LinearHead", "Loaded", "Shapes",
    "adapter_of", "architecture", "find_head", "head_of", "is_classifier",
)  # fmt: skip

_KINDS: Mapping[Adapter, type[Head]] = {kind.adapter: kind for kind in (LinearHead, LabelHead, GatedHead)}
PLAIN = LinearHead()
"""The head of transformers' classifiers with one label, without a bias."""


def find_head(card: Card, config: Mapping[str, Any], shapes: Shapes, *, has_weights: bool = True) -> Head:
    """Return the head that `card` describes, found among the tensors; tokens that it names are not resolved yet.

    Raises:
        CheckpointError: the head is missing, misshapen or not the only one, or there are tensors of another kind.
    """
    head = _KINDS[card.adapter].find(card, config, shapes, has_weights=has_weights)
    known = (*BACKBONE, *DROPPED)
    for name, shape in shapes.items():
        if not (name.startswith(known) or name in head.tensors or is_output_matrix(name, shape, config)):
            raise CheckpointError(
                f"it has {name}, which is neither its backbone's nor its head's; models of this kind are not served"
            )
    return head


def head_of(given: Mapping[str, Any]) -> Head:
    """Return the head that was given to an engine's process by `Head.as_dict`; its tuples may have become lists."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    adapter: Adapter = fields.pop("adapter")
    return _KINDS[adapter](**fields)


def adapter_of(config: Mapping[str, Any]) -> Adapter:
    """Return the kind of head that a config.json tells by its architecture; linear where it tells none."""
    named = architecture(config)
    return next((kind.adapter for kind in _KINDS.values() if named in kind.architectures), "linear")
