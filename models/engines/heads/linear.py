"""A linear head: one row, with or without a bias, under one of many names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from winnow.models.cards import Card
from winnow.models.cards.card import Adapter
from winnow.models.engines.heads.base import BACKBONE, DROPPED, Head, Loaded, Shapes, is_classifier, require_numbers
from winnow.models.errors import CheckpointError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class LinearHead(Head):
    """One row of the width of the model, and its `bias` if there is one."""

    adapter: ClassVar[Adapter] = "linear"

    bias: str | None = None

    @classmethod
    def find(cls, card: Card, config: Mapping[str, Any], shapes: Shapes, *, has_weights: bool) -> Self:
        """Return the only tensor outside the backbone that has one row; see `Head.find`."""
        if not has_weights:
            return cls(f"{card.head or 'score'}.weight")
        _require_no_gate(shapes)
        rows = [
            name
            for name, shape in shapes.items()
            if name.endswith(".weight")
            and not name.startswith((*BACKBONE, *DROPPED))
            and not is_output_matrix(name, shape, config)
        ]
        if card.head and f"{card.head}.weight" not in shapes:
            found = f"it has {rows[0]}" if rows else "it has none"
            raise CheckpointError(f"no tensor {card.head}.weight, the head that card {card.name} names; {found}")
        if not card.head and len(rows) != 1:
            reason = (
                f"{' and '.join(sorted(rows)[:3])}; name one in a card" if rows else "no head, such as score.weight"
            )
            raise CheckpointError(f"it has {reason}")
        weight = f"{card.head}.weight" if card.head else rows[0]
        _require_one_row(weight, shapes, config)
        bias = weight.removesuffix("weight") + "bias"
        return cls(weight, bias=bias if bias in shapes else None)

    @property
    def is_plain(self) -> bool:
        """Whether it is the head of transformers' classifiers with one label, without a bias."""
        return self == type(self)()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The row, and its bias."""
        return (self.weight, self.bias) if self.bias else (self.weight,)

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def placeholder(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the row itself."""
        return tensors[self.weight]

    def forward(self, loaded: Loaded) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the product with the row, in float64: float32 sums depend on the batch."""
        import torch

        weight = loaded.tensors[self.weight].double()
        bias = loaded.tensors[self.bias].double() if self.bias else None
        return lambda hidden: torch.nn.functional.linear(hidden.double(), weight, bias).float()

    def reference(self, tensors: Mapping[str, torch.Tensor], hidden: torch.Tensor, ids: Sequence[int]) -> float:
        """Return the product of the last hidden vector with the row, plus the bias."""
        score = hidden[-1] @ tensors[self.weight][0]
        return float(score + tensors[self.bias][0] if self.bias else score)

    def score(self, outputs: Sequence[float], shared: Sequence[float] | None = None) -> float:
        """Return the only number."""
        require_numbers(outputs, 1)
        return outputs[0]


def is_output_matrix(name: str, shape: Sequence[int], config: Mapping[str, Any]) -> bool:
    """Whether a tensor is a causal model's output matrix under InternLM2's name, which is no head."""
    return name == "output.weight" and list(shape)[:1] == [config.get("vocab_size")]


def _require_no_gate(shapes: Shapes) -> None:
    """Refuse a model whose score is a sum that a gate weighs: its linear layer alone, or a random one, means nothing.

    Raises:
        CheckpointError: it has a gate.
    """
    if gate := next((name for name in shapes if name.startswith("gating.")), None):
        raise CheckpointError(
            f'it has {gate}: its score is a gated sum, which a card with adapter = "gated" reads '
            "(`winnow models show armorm`)"
        )
    if gate := next((name for name in shapes if name.split(".")[0] == "weights"), None):
        raise CheckpointError(f"it has {gate}, a gating head as URM's, whose form is not known; it is not served")


def _require_one_row(weight: str, shapes: Shapes, config: Mapping[str, Any]) -> None:
    shape, width = list(shapes[weight]), config.get("hidden_size")
    if shape != [1, width]:
        raise CheckpointError(f"{weight} is {shape}, but a reward model of hidden_size {width} needs [1, {width}]")
    labels = config.get("num_labels") or len(config.get("id2label") or {0: ""})
    if labels != 1 and is_classifier(config):
        raise CheckpointError(f"{weight} has one row, but config.json has {labels} labels")
