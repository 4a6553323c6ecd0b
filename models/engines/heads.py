"""Heads of reward models: which tensors of a checkpoint make the score, and what the engine returns for it.

Two kinds. A *linear* head is one row, with or without a bias, under one of many names. *Label tokens* are rows of a
causal model's output matrix: the score is the difference of two logits, or one logit. The engine's side is
`winnow.models.engines.vllm_loader`; a new kind is a function in `_FINDERS` and a branch there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from winnow.models.cards import Card
from winnow.models.cards.card import Adapter
from winnow.models.errors import CandidateFailed, CheckpointError

Shapes = Mapping[str, Sequence[int]]
"""The shapes of a checkpoint's tensors by name."""

DROPPED = ("lm_head.", "normalizer.")
"""Tensors beside a backbone and a head that are left out: an unused output matrix, and a training run's statistics,
which no author's forward pass applies to the score."""
EMBEDDING = "embed_tokens.weight"
_BACKBONE = ("model.", "transformer.", "gpt_neox.", "layers.", "embed_tokens.", "norm.")
_SCALED_LOGITS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Settings of a config that scale logits in a way that is not served."""


@dataclass(frozen=True, slots=True)
class Head:
    """The tensors of a score: `weight`, its `bias` if there is one, and the `rows` of a vocabulary that are labels.

    With `rows` the engine returns their logits, capped at `cap` as Gemma 2's are, and the logarithm of the sum over
    the vocabulary. `architecture` is vLLM's name of the model, where config.json has another.
    """

    weight: str = "score.weight"
    bias: str | None = None
    rows: tuple[int, ...] = ()
    cap: float | None = None
    architecture: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether vLLM loads it by itself."""
        return self == PLAIN

    @property
    def outputs(self) -> int:
        """Numbers that vLLM's own head returns for an answer."""
        return len(self.rows) or 1

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that vLLM is told instead of what config.json says."""
        named = {"architectures": [self.architecture]} if self.architecture else {}
        return {"num_labels": self.outputs, **named}

    def as_dict(self) -> dict[str, Any]:
        """Return the head in the form in which it reaches an engine's process."""
        return asdict(self)

    def score(self, outputs: Sequence[float]) -> float:
        """Return the raw logit of what the engine returned for an answer.

        Raises:
            CandidateFailed: there are more or fewer numbers than the head has.
        """
        if len(outputs) not in (self.outputs, self.outputs + bool(self.rows)):
            raise CandidateFailed(f"the engine returned {len(outputs)} scores instead of {self.outputs}")
        return outputs[0] - (outputs[1] if len(self.rows) == 2 else 0.0)

    def label_mass(self, outputs: Sequence[float]) -> float | None:
        """Return the probability that one of two labels is the next token; None if that is not known."""
        if len(self.rows) < 2 or len(outputs) <= len(self.rows):
            return None
        return sum(math.exp(logit - outputs[-1]) for logit in outputs[: len(self.rows)])


PLAIN = Head()
"""The head of transformers' classifiers with one label, without a bias."""


def find_head(card: Card, config: Mapping[str, Any], shapes: Shapes, *, has_weights: bool = True) -> Head:
    """Return the head that `card` describes, found among the tensors; its label rows are not resolved yet.

    Raises:
        CheckpointError: the head is missing, misshapen or not the only one, or there are tensors of another kind.
    """
    head = _FINDERS[card.adapter](card, config, shapes, has_weights)
    if unknown := [name for name in shapes if not _is_known(name, head)]:
        raise CheckpointError(
            f"it has {unknown[0]}, which is neither its backbone's nor its head's; models of this kind are not served"
        )
    return head


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of one of transformers' classifiers."""
    return architecture(config).endswith("ForSequenceClassification")


def architecture(config: Mapping[str, Any]) -> str:
    """Return the architecture that a config.json names; "none" if it names none."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "none"


def _is_known(name: str, head: Head) -> bool:
    return name.startswith((*_BACKBONE, *DROPPED)) or name in (head.weight, head.bias)


def _linear(card: Card, config: Mapping[str, Any], shapes: Shapes, has_weights: bool) -> Head:
    """Return the only tensor outside the backbone that has one row."""
    if not has_weights:
        return Head(f"{card.head or 'score'}.weight")
    rows = [name for name in shapes if name.endswith(".weight") and not name.startswith((*_BACKBONE, *DROPPED))]
    if card.head and f"{card.head}.weight" not in shapes:
        found = f"it has {rows[0]}" if rows else "it has none"
        raise CheckpointError(f"no tensor {card.head}.weight, the head that card {card.name} names; {found}")
    if not card.head and len(rows) != 1:
        reason = f"{' and '.join(sorted(rows)[:3])}; name one in a card" if rows else "no head, such as score.weight"
        raise CheckpointError(f"it has {reason}")
    weight = f"{card.head}.weight" if card.head else rows[0]
    _require_one_row(weight, shapes, config)
    bias = weight.removesuffix("weight") + "bias"
    return Head(weight, bias if bias in shapes else None)


def _require_one_row(weight: str, shapes: Shapes, config: Mapping[str, Any]) -> None:
    shape, width = list(shapes[weight]), config.get("hidden_size")
    if shape != [1, width]:
        raise CheckpointError(f"{weight} is {shape}, but a reward model of hidden_size {width} needs [1, {width}]")
    labels = config.get("num_labels") or len(config.get("id2label") or {0: ""})
    if labels != 1 and is_classifier(config):
        raise CheckpointError(f"{weight} has one row, but config.json has {labels} labels")


def _labels(card: Card, config: Mapping[str, Any], shapes: Shapes, has_weights: bool) -> Head:
    """Return the output matrix, which is the embedding where the two are tied."""
    if scaled := [name for name in _SCALED_LOGITS if config.get(name) not in (None, 1, 1.0)]:
        raise CheckpointError(f"config.json has {scaled[0]}, which label tokens do not honour yet")
    cap = config.get("final_logit_softcapping")
    if not has_weights:
        return Head("lm_head.weight", cap=cap)
    tied = [name for name in shapes if name.endswith(EMBEDDING)]
    weight = "lm_head.weight" if "lm_head.weight" in shapes else next(iter(tied), None)
    if weight is None or (weight != "lm_head.weight" and config.get("tie_word_embeddings") is False):
        raise CheckpointError("no tensor lm_head.weight; label tokens are read from a causal model's output matrix")
    width = config.get("hidden_size")
    if list(shapes[weight])[1:] != [width]:
        raise CheckpointError(f"{weight} is {list(shapes[weight])}, but config.json has hidden_size {width}")
    return Head(weight, cap=cap)


_FINDERS: Mapping[Adapter, Callable[[Card, Mapping[str, Any], Shapes, bool], Head]] = {
    "linear": _linear,
    "labels": _labels,
}
