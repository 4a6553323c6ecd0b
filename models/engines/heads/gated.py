"""A gated head: many objectives' rewards of the answer, weighed by a gate that is read from the prompt.

ArmoRM and QRM (`LlamaForRewardModelWithGating`). Rewards are a linear layer of the last hidden vector, for QRM the mean
of its quantiles, times `reward_transform_matrix`. The gate is a small network of the hidden vector where the prompt
ends: at the first token of the last occurrence of a pattern, which opens the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from winnow.models.cards import Card
from winnow.models.cards.card import Adapter
from winnow.models.engines.heads.base import Head, Loaded, Shapes, TokenIds, require_numbers
from winnow.models.errors import CandidateFailed, CheckpointError

if TYPE_CHECKING:
    import torch

WEIGHT, TRANSFORM, SCALE = "regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"
LLAMA3 = ("<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "ĊĊ")
"""The pattern that opens an answer in Llama 3's template; a card's `gate` is another."""
_DEFAULTS: Mapping[str, int] = {
    "num_objectives": 19,
    "num_quantiles": 1,
    "gating_temperature": 10,
    "gating_hidden_dim": 1024,
    "gating_n_hidden": 3,
}
"""Values that the authors' code takes for a setting that config.json does not have."""


@dataclass(frozen=True, slots=True)
class GatedHead(Head):
    """`objectives` rewards of `quantiles` rows each, and a gate of `hidden` layers with ReLU and one without.

    The gate is the softmax of its last layer over `temperature`, times a scale, at the first of `pattern`'s ids. For
    a token the engine returns both: the rewards, and the gate.
    """

    adapter: ClassVar[Adapter] = "gated"
    architectures: ClassVar[tuple[str, ...]] = ("LlamaForRewardModelWithGating",)

    weight: str = WEIGHT
    objectives: int = 1
    quantiles: int = 1
    hidden: int = 0
    temperature: float = 1.0
    pattern: tuple[int, ...] = ()

    @classmethod
    def find(cls, card: Card, config: Mapping[str, Any], shapes: Shapes, *, has_weights: bool) -> Self:
        """Return the head, if its tensors are those that config.json asks for; see `Head.find`."""
        if card.head:
            raise CheckpointError(f"card {card.name} names a head, but a gated one is always regression_layer")
        size = {name: _setting(name, config) for name in _DEFAULTS}
        head = cls(
            objectives=int(size["num_objectives"]),
            quantiles=int(size["num_quantiles"]),
            hidden=int(size["gating_n_hidden"]),
            temperature=size["gating_temperature"],
        )
        if has_weights:
            head._require(shapes, config.get("hidden_size"), int(size["gating_hidden_dim"]))
        return head

    def _require(self, shapes: Shapes, width: Any, inner: int) -> None:
        """Check the head's tensors and the gate's, of which there must be no others.

        Raises:
            CheckpointError: one is missing, misshapen or unknown.
        """
        sizes = [width, *[inner] * self.hidden, self.objectives]
        expected = {
            WEIGHT: [self.quantiles * self.objectives, width],
            TRANSFORM: [self.objectives, self.objectives],
            SCALE: [1],
        }
        for layer in range(self.hidden + 1):
            expected[_layer(layer, "weight")] = [sizes[layer + 1], sizes[layer]]
            expected[_layer(layer, "bias")] = [sizes[layer + 1]]
        if other := next((name for name in shapes if name.startswith("gating.") and name not in expected), None):
            raise CheckpointError(
                f"it has {other}, which a gate of {self.hidden + 1} linear layers has not; such gates are not served"
            )
        for name, shape in expected.items():
            if name not in shapes:
                raise CheckpointError(f"no tensor {name}, which a gated head needs")
            if list(shapes[name]) != shape:
                raise CheckpointError(f"{name} is {list(shapes[name])}, but its config asks for {shape}")

    @property
    def tensors(self) -> tuple[str, ...]:
        """The rewards' layer and matrix, and the gate's layers and scale."""
        layers = [_layer(layer, kind) for layer in range(self.hidden + 1) for kind in ("weight", "bias")]
        return (self.weight, TRANSFORM, SCALE, *layers)

    @property
    def outputs(self) -> int:
        """A reward and a weight for each objective."""
        return 2 * self.objectives

    def resolved(self, card: Card, token_ids: TokenIds) -> Self:
        """Return the head with the ids of the pattern where the gate is read: the card's, or Llama 3's."""
        return replace(self, pattern=token_ids(card.gate or LLAMA3))

    def placeholder(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return zeros: the head is no linear layer."""
        weight = tensors[self.weight]
        return weight.new_zeros(self.outputs, weight.shape[1])

    def forward(self, loaded: Loaded) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the rewards and the gate, in float64; quantiles and matrix are folded into one layer."""
        import torch

        given = {name: tensor.double() for name, tensor in loaded.tensors.items()}
        rows = given[self.weight].reshape(self.objectives, self.quantiles, -1).mean(dim=1)
        rewards, scale = given[TRANSFORM].T @ rows, given[SCALE]
        layers = [(given[_layer(layer, "weight")], given[_layer(layer, "bias")]) for layer in range(self.hidden + 1)]

        def run(hidden: torch.Tensor) -> torch.Tensor:
            vectors = inner = hidden.double()
            for weight, bias in layers[:-1]:
                inner = torch.nn.functional.linear(inner, weight, bias).relu()
            gate = (torch.nn.functional.linear(inner, *layers[-1]) / self.temperature).softmax(dim=-1) * scale
            return torch.cat([torch.nn.functional.linear(vectors, rewards), gate], dim=-1).float()

        return run

    def reference(self, tensors: Mapping[str, torch.Tensor], hidden: torch.Tensor, ids: Sequence[int]) -> float:
        """Return the gated sum of one pass over the whole conversation."""
        quantiles = (tensors[self.weight] @ hidden[-1]).view(self.objectives, self.quantiles)
        rewards = quantiles.mean(dim=1) @ tensors[TRANSFORM]
        vector = hidden[self._place(ids)]
        for layer in range(self.hidden + 1):
            vector = tensors[_layer(layer, "weight")] @ vector + tensors[_layer(layer, "bias")]
            vector = vector.clamp(min=0) if layer < self.hidden else vector
        gate = (vector / self.temperature).softmax(dim=0) * tensors[SCALE][0]
        return float((gate * rewards).sum())

    def shared_ids(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the prompt's ids, up to the one at which the gate is read; see `Head.shared_ids`."""
        return tuple(ids[: self._place(ids) + 1])

    def score(self, outputs: Sequence[float], shared: Sequence[float] | None = None) -> float:
        """Return the sum of the answer's rewards, weighed by the prompt's gate."""
        gate = shared or ()
        for numbers in (outputs, gate):
            require_numbers(numbers, self.outputs)
        return sum(
            reward * weight for reward, weight in zip(outputs[: self.objectives], gate[self.objectives :], strict=True)
        )

    def _place(self, ids: Sequence[int]) -> int:
        """Return the place of the first token of the pattern's last occurrence.

        Raises:
            CandidateFailed: there is none.
        """
        pattern = list(self.pattern)
        for place in range(len(ids) - len(pattern), -1, -1):
            if ids[place] == pattern[0] and list(ids[place : place + len(pattern)]) == pattern:
                return place
        raise CandidateFailed(
            "the conversation has no place for the reward model's gate, the tokens of its card's gate"
        )


def _layer(number: int, kind: str) -> str:
    return f"gating.layers.{number}.{kind}"


def _setting(name: str, config: Mapping[str, Any]) -> float:
    """Return a size in config.json, or the authors' default.

    Raises:
        CheckpointError: it is not a number that can be used.
    """
    value = config.get(name)
    value = _DEFAULTS[name] if value is None else value
    is_size = name != "gating_temperature"
    if isinstance(value, bool) or not isinstance(value, int if is_size else (int, float)):
        raise CheckpointError(f"config.json: {name} is {value!r}, not a number")
    if not value > 0 and not (name == "gating_n_hidden" and value == 0):
        raise CheckpointError(f"config.json: {name} is {value!r}, not above 0")
    return value
