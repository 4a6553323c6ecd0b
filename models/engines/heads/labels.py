"""Label tokens: rows of a causal model's output matrix. The score is the difference of two logits, or one logit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from winnow.models.cards import Card
from winnow.models.cards.card import Adapter
from winnow.models.engines.heads.base import EMBEDDINGS, Head, Loaded, Shapes, TokenIds, require_numbers
from winnow.models.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ROWS_AT_ONCE = 16
"""Answers whose logits over the vocabulary are held at once: 16 MB with 256,000 tokens, and a few copies."""
_SCALED_LOGITS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Settings of a config that scale logits in a way that is not served."""


@dataclass(frozen=True, slots=True)
class LabelHead(Head):
    """The `rows` of a vocabulary that are labels, one or two; their logits are capped at `cap` as Gemma 2's are.

    The engine returns their logits, and the logarithm of the sum over the vocabulary.
    """

    adapter: ClassVar[Adapter] = "labels"

    rows: tuple[int, ...] = ()
    cap: float | None = None

    @classmethod
    def find(cls, card: Card, config: Mapping[str, Any], shapes: Shapes, *, has_weights: bool) -> Self:
        """Return the output matrix, which is the embedding where the two are tied; see `Head.find`."""
        if scaled := [name for name in _SCALED_LOGITS if config.get(name) not in (None, 1, 1.0)]:
            raise CheckpointError(f"config.json has {scaled[0]}, which label tokens do not honour yet")
        cap = config.get("final_logit_softcapping")
        if not has_weights:
            return cls("lm_head.weight", cap=cap)
        tied = [name for name in shapes if name.endswith(EMBEDDINGS)]
        weight = "lm_head.weight" if "lm_head.weight" in shapes else next(iter(tied), None)
        if weight is None or (weight != "lm_head.weight" and config.get("tie_word_embeddings") is False):
            raise CheckpointError("no tensor lm_head.weight; label tokens are read from a causal model's output matrix")
        width = config.get("hidden_size")
        if list(shapes[weight])[1:] != [width]:
            raise CheckpointError(f"{weight} is {list(shapes[weight])}, but config.json has hidden_size {width}")
        return cls(weight, cap=cap)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The output matrix."""
        return (self.weight,)

    @property
    def vocabulary_matrix(self) -> str | None:
        """The output matrix, if it is not the embedding."""
        return None if self.weight.endswith(EMBEDDINGS) else self.weight

    @property
    def outputs(self) -> int:
        """One for each label."""
        return len(self.rows) or 1

    def resolved(self, card: Card, token_ids: TokenIds) -> Self:
        """Return the head with the rows of the card's labels."""
        return replace(self, rows=token_ids(card.labels))

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the labels' rows."""
        return tensor[list(self.rows)]

    def placeholder(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the labels' rows."""
        return tensors[self.weight]

    def forward(self, loaded: Loaded) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the labels' logits, in float64, and the logarithm of the sum over the vocabulary."""
        import torch

        weight, matrix = loaded.tensors[self.weight].double(), loaded.output_matrix()

        def log_sum(hidden: torch.Tensor) -> torch.Tensor:
            every = self._capped((hidden.to(matrix.dtype) @ matrix.T).float())
            return torch.logsumexp(every, dim=-1, keepdim=True)

        def run(hidden: torch.Tensor) -> torch.Tensor:
            logits = self._capped(torch.nn.functional.linear(hidden.double(), weight))
            sums = [log_sum(part) for part in torch.split(hidden, ROWS_AT_ONCE)]
            return torch.cat([logits.float(), torch.cat(sums)], dim=-1)

        return run

    def reference(self, tensors: Mapping[str, torch.Tensor], hidden: torch.Tensor, ids: Sequence[int]) -> float:
        """Return the difference of two logits at the last token, or the only one."""
        logits: list[float] = self._capped(hidden[-1] @ tensors[self.weight].T).tolist()
        return logits[0] - (logits[1] if len(logits) == 2 else 0.0)

    def score(self, outputs: Sequence[float], shared: Sequence[float] | None = None) -> float:
        """Return the better label's logit minus the worse one's; see `Head.score`."""
        require_numbers(outputs, self.outputs, self.outputs + 1)
        return outputs[0] - (outputs[1] if len(self.rows) == 2 else 0.0)

    def label_mass(self, outputs: Sequence[float]) -> float | None:
        """Return the probability that one of two labels is the next token; None if that is not known."""
        if len(self.rows) < 2 or len(outputs) <= len(self.rows):
            return None
        return sum(math.exp(logit - outputs[-1]) for logit in outputs[: len(self.rows)])

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.cap is None else (logits / self.cap).tanh() * self.cap
