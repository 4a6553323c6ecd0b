"""Encoder classifiers (BERT, RoBERTa, DeBERTa …) as their files describe them: head, labels, context, size.

What a checkpoint cannot be served for is refused here, before torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.models.cards import Card
from winnow.models.cards.card import Reduce
from winnow.models.engines.backbone import require_layers
from winnow.models.engines.checkpoint import read_json, tensor_shapes
from winnow.models.engines.heads import Shapes, architecture, is_classifier
from winnow.models.engines.hub import config_folder, is_local
from winnow.models.errors import CheckpointError

_POOLED = ("classifier.dense", "classifier.out_proj")
_HEADS: Mapping[str, tuple[str, ...]] = {
    "albert": ("albert.pooler", "classifier"),
    "bert": ("bert.pooler.dense", "classifier"),
    "camembert": _POOLED,
    "deberta": ("pooler.dense", "classifier"),
    "deberta-v2": ("pooler.dense", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "electra": _POOLED,
    "modernbert": ("head.dense", "classifier"),
    "roberta": _POOLED,
    "xlm-roberta": _POOLED,
}
"""The layers above the backbone by model type, without `.weight`; the last one has a row for each label."""
_OFFSET_POSITIONS = ("camembert", "roberta", "xlm-roberta")
"""Model types that count positions from the one behind the padding id, so that the table has more than can be used."""
LARGEST = 600_000_000
"""Most numbers of an encoder's tensors: it computes in the server's process, on threads that the server needs, too."""
_OPTIONAL = ("attn_norm.weight",)
"""The tensor that ModernBERT's first layer lacks."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder classifier: its `labels` by row, the most tokens that it reads, and how its logits make one."""

    labels: tuple[str, ...]
    context: int
    rows: tuple[int, ...]
    reduce: Reduce

    def score(self, logits: Sequence[float]) -> float:
        """Return the raw logit of the labels' logits; NaN if one that counts is NaN."""
        chosen = [logits[row] for row in self.rows]
        if self.reduce == "minus_max":
            return math.nan if any(map(math.isnan, chosen)) else -max(chosen)
        return chosen[0] - (chosen[1] if self.reduce == "difference" else 0.0)


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of an encoder, whatever its head."""
    return config.get("model_type") in _HEADS


def inspect_encoder(card: Card, config: Mapping[str, Any], shapes: Shapes) -> Encoder:
    """Return the encoder that `card` describes; of no tensors, as for random weights, only the config is checked.

    Raises:
        CheckpointError: it cannot be served, or its files contradict each other or the card.
    """
    if not is_classifier(config):
        raise CheckpointError(f"it is a {architecture(config)}, an encoder without a head (ForSequenceClassification)")
    size = sum(map(math.prod, shapes.values())) if shapes else parameters(config)
    if size > LARGEST:
        raise CheckpointError(
            f"it is an encoder of {size // 10**6:,} million parameters; it would compute in the server's own process, "
            f"where at most {LARGEST // 10**6:,} million are served"
        )
    labels = _labels(config, _outputs(config, shapes) if shapes else None)
    if shapes:
        _require_backbone(config, shapes)
    rows, reduce = _reduction(card, labels)
    longest = longest_text(config)
    return Encoder(labels, min(card.context or longest, longest), rows, reduce)


def longest_text(config: Mapping[str, Any]) -> int:
    """Return the most tokens that the encoder of a config.json reads, its own special ones included.

    Raises:
        CheckpointError: the config does not tell.
    """
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        raise CheckpointError("config.json has no max_position_embeddings")
    pad = config.get("pad_token_id")
    first = (1 if pad is None else pad) + 1 if config.get("model_type") in _OFFSET_POSITIONS else 0
    return int(positions) - first


def parameters(config: Mapping[str, Any]) -> int:
    """Return about how many numbers the tensors of an encoder hold, by its config.json.

    Raises:
        CheckpointError: a size is missing.
    """

    def size(*names: str) -> int:
        value = next((config[name] for name in names if config.get(name) is not None), None)
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f"config.json: {names[0]} is {value!r}, not a number from 1")
        return value

    hidden, inner = size("hidden_size", "dim"), size("intermediate_size", "hidden_dim")
    # ALBERT's layers share their tensors; ModernBERT's have a gate, and its positions none.
    is_modern = config["model_type"] == "modernbert"
    layers = 1 if config["model_type"] == "albert" else size("num_hidden_layers", "n_layers")
    matrices = 3 if is_modern else 2
    embeddings = (size("vocab_size") + (0 if is_modern else size("max_position_embeddings"))) * hidden
    return embeddings + layers * (4 * hidden * hidden + matrices * hidden * inner)


def stored_numbers(checkpoint: str) -> int:
    """Return how many numbers an encoder's tensors hold: a folder's, or about as many by a hub id's config.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    folder = config_folder(checkpoint)
    if is_local(checkpoint) and any(folder.glob("*.safetensors")):
        return sum(map(math.prod, tensor_shapes(folder, "reward model").values()))
    return parameters(read_json(folder / "config.json", "reward model"))


def _outputs(config: Mapping[str, Any], shapes: Shapes) -> int:
    """Return the rows of the head, all of whose layers are there."""
    layers = _HEADS[config["model_type"]]
    for name in (*(f"{layer}.weight" for layer in layers), f"{layers[-1]}.bias"):
        if name not in shapes:
            raise CheckpointError(f"no tensor {name}, which is its head's; the checkpoint has no trained head")
    weight, bias = list(shapes[f"{layers[-1]}.weight"]), list(shapes[f"{layers[-1]}.bias"])
    if len(weight) != 2 or bias != weight[:1]:
        raise CheckpointError(f"{layers[-1]}.weight is {weight} and its bias {bias}, which is no linear head")
    return int(weight[0])


def _labels(config: Mapping[str, Any], outputs: int | None) -> tuple[str, ...]:
    """Return the names of the labels by row: the config's, or numbers where it has none."""
    named, number = config.get("id2label"), config.get("num_labels")
    try:
        names = {int(row): str(name) for row, name in (named or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise CheckpointError("config.json: id2label is no mapping from numbers to names") from None
    if names and sorted(names) != list(range(len(names))):
        raise CheckpointError("config.json: id2label does not number its labels from 0")
    told = len(names) or number or outputs or 2
    if number is not None and number != told:
        raise CheckpointError(f"config.json has {told} labels in id2label, but num_labels {number}")
    if outputs is not None and outputs != told:
        raise CheckpointError(f"its head has {outputs} rows, but config.json has {told} labels")
    return tuple(names[row] for row in range(told)) if names else tuple(f"LABEL_{row}" for row in range(told))


def _reduction(card: Card, labels: Sequence[str]) -> tuple[tuple[int, ...], Reduce]:
    """Return the rows that make the score, and how."""
    rows = tuple(_row(label, labels) for label in card.labels)
    if len(set(rows)) < len(rows):
        raise CheckpointError(f"card {card.name} names a label twice; its labels are {', '.join(labels)}")
    if card.reduce == "minus_max":
        return rows or tuple(range(len(labels))), "minus_max"
    if len(rows) == 2:
        return rows, "difference"
    if len(rows) == 1 or len(labels) == 1:
        return rows or (0,), "raw"
    raise CheckpointError(
        f"it has {len(labels)} labels ({', '.join(labels[:8])}): say in a card which of them make the score "
        "(`winnow models show roberta-toxicity`)"
    )


def _row(label: int | str, labels: Sequence[str]) -> int:
    found = [row for row, name in enumerate(labels) if label in (row, name)]
    if len(found) != 1:
        problem = "has no label" if not found else "has more than one label"
        raise CheckpointError(f"it {problem} {label!r}; its labels are {', '.join(labels[:20])}")
    return found[0]


def _require_backbone(config: Mapping[str, Any], shapes: Shapes) -> None:
    """Check that every layer is there, with the tensors of all; ALBERT's share theirs."""
    if config["model_type"] != "albert":
        layers = config.get("num_hidden_layers") or config.get("n_layers") or 0
        require_layers(layers, shapes, _OPTIONAL)
    width = config.get("embedding_size") or config.get("hidden_size") or config.get("dim")
    asked = [config.get("vocab_size"), width]
    for name, shape in shapes.items():
        if name.endswith(("word_embeddings.weight", "tok_embeddings.weight")) and list(shape) != asked:
            raise CheckpointError(f"{name} is {list(shape)}, but its config asks for {asked}")
        positions = config.get("max_position_embeddings")
        if positions and name.endswith("position_embeddings.weight") and list(shape)[:1] != [positions]:
            raise CheckpointError(f"{name} is {list(shape)}, but its config has max_position_embeddings {positions}")
