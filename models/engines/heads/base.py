"""Parts that every kind of head has: its tensors, its forward passes, and the score that is made of them.

A kind is one class in a module of this package. What runs in an engine or in the reference imports torch when it is
called: a checkpoint is inspected without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from winnow.models.cards import Card
from winnow.models.cards.card import Adapter
from winnow.models.errors import CandidateFailed

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, Sequence[int]]
"""The shapes of a checkpoint's tensors by name."""
TokenIds = Callable[[Sequence[int | str]], tuple[int, ...]]
"""A vocabulary: the ids of tokens that a card names, by name or id."""

DROPPED = ("lm_head.", "normalizer.")
"""Tensors beside a backbone and a head that are left out: an unused output matrix, and a training run's statistics,
which no author's forward pass applies to the score."""
EMBEDDINGS = ("embed_tokens.weight", "tok_embeddings.weight")
BACKBONE = ("model.", "transformer.", "gpt_neox.", "layers.", "embed_tokens.", "norm.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A head's tensors on an engine's device, as the checkpoint has them but for `Head.part`.

    `output_matrix` returns the model's output matrix [vocabulary, width] in the engine's precision.
    """

    tensors: Mapping[str, torch.Tensor]
    output_matrix: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Head(ABC):
    """The tensors of a score, of which `weight` is the first, and how the score is made of them.

    `architecture` is vLLM's name of the model, where config.json has another. `unset` are settings of config.json that
    are its author's own, and mean something else to vLLM.
    """

    adapter: ClassVar[Adapter]
    """The name of the kind in a card."""
    architectures: ClassVar[tuple[str, ...]] = ()
    """Names in config.json that tell the kind without a card."""

    weight: str = "score.weight"
    architecture: str | None = None
    unset: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def find(cls, card: Card, config: Mapping[str, Any], shapes: Shapes, *, has_weights: bool) -> Self:
        """Return the head that `card` describes, found among the tensors; tokens that it names are not resolved yet.

        Raises:
            CheckpointError: the head is missing or misshapen, or the model is of another kind.
        """

    @property
    def is_plain(self) -> bool:
        """Whether vLLM and transformers load it by themselves."""
        return False

    @property
    @abstractmethod
    def tensors(self) -> tuple[str, ...]:
        """The names of its tensors."""

    @property
    def vocabulary_matrix(self) -> str | None:
        """The name of the output matrix, if the engine needs it and it is not the embedding."""
        return None

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that vLLM's own head, which `forward` takes the place of, returns for an answer."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that vLLM is told instead of what config.json says."""
        named = {"architectures": [self.architecture]} if self.architecture else {}
        return {"num_labels": self.outputs, **named, **dict.fromkeys(self.unset, False)}

    def as_dict(self) -> dict[str, Any]:
        """Return the head in the form in which it reaches an engine's process."""
        return {"adapter": self.adapter, **asdict(self)}

    def resolved(self, card: Card, token_ids: TokenIds) -> Self:
        """Return the head with the ids of the tokens that the card names.

        Raises:
            CheckpointError: the vocabulary has no such token.
        """
        return self

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the part of one of its tensors that it needs."""
        return tensor

    @abstractmethod
    def placeholder(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a weight [outputs, width] for vLLM's own head, which insists on one."""

    @abstractmethod
    def forward(self, loaded: Loaded) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the engine's forward pass: hidden vectors [rows, width] → what `score` reads, [rows, numbers]."""

    @abstractmethod
    def reference(self, tensors: Mapping[str, torch.Tensor], hidden: torch.Tensor, ids: Sequence[int]) -> float:
        """Return the score of one conversation, `hidden` [tokens, width] and `ids`, as its author computes it.

        All in float32. `winnow check` compares `score` with it, so it takes no part of `forward`.
        """

    def shared_ids(self, ids: Sequence[int]) -> tuple[int, ...] | None:
        """Return the ids up to a token before the answer that the score is read at, too; None if there is none.

        Raises:
            CandidateFailed: the conversation has no such token.
        """
        return None

    @abstractmethod
    def score(self, outputs: Sequence[float], shared: Sequence[float] | None = None) -> float:
        """Return the raw logit of what the engine returned for an answer, and for its `shared_ids`.

        Raises:
            CandidateFailed: there are more or fewer numbers than the head has.
        """

    def label_mass(self, outputs: Sequence[float]) -> float | None:
        """Return the probability that one of two labels is the next token; None if that is not known."""
        return None


def require_numbers(outputs: Sequence[float], *expected: int) -> None:
    """Check that the engine returned as many numbers as a head has.

    Raises:
        CandidateFailed: it did not.
    """
    if len(outputs) not in expected:
        raise CandidateFailed(f"the engine returned {len(outputs)} scores instead of {expected[0]}")


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of one of transformers' classifiers."""
    return architecture(config).endswith("ForSequenceClassification")


def architecture(config: Mapping[str, Any]) -> str:
    """Return the architecture that a config.json names; "none" if it names none."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "none"
