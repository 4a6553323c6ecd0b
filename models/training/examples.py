"""Examples that a reward model is trained on, as token ids, and the recipe. Nothing here knows of files or of text."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Example:
    """One unit of training: a comparison, or one labelled answer.

    The ids are those of prompt, answer and end, exactly what is served and scored. Without `rejected` there is no
    ranking loss. `margin` is m(r) in -log sigmoid(r_chosen - r_rejected - m(r)). A label is true for a good answer
    (safe, or helpful), and None where nobody gave one.
    """

    chosen: tuple[int, ...]
    rejected: tuple[int, ...] | None
    margin: float = 0.0
    chosen_label: bool | None = None
    rejected_label: bool | None = None

    def __post_init__(self) -> None:
        if not self.chosen or self.rejected == ():
            raise ValueError("an answer has no tokens")
        if self.rejected is None and (self.chosen_label is None or self.rejected_label is not None):
            raise ValueError("an answer without another to compare with needs its label, and only its own")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The way in which a reward model is trained; the defaults are the paper's.

    `batch` is the number of examples of a step, `micro_batch` the most that are computed at once: the largest divisor
    of `batch` up to it is used, and changes memory, time and order alone.

    `auxiliary` is the weight of the binary cross-entropy on labels, `label_smoothing` the share of comparisons and
    labels taken for wrong, `centre` the weight of (r_chosen + r_rejected)^2.

    `lora_rank` trains low-rank adapters on all linear layers (alpha is twice the rank) and the head in place of all
    weights, and merges them at the end; they want about ten times the learning rate. `upper_layers` trains only that
    many last layers, the final norm and the head. `dtype` is that of the forward pass; weights and optimiser are
    float32. `save_seconds` is the time between checkpoints.
    """

    epochs: float = 1.0
    learning_rate: float = 1e-5
    batch: int = 512
    micro_batch: int = 8
    auxiliary: float = 1.0
    label_smoothing: float = 0.0
    centre: float = 0.0
    weight_decay: float = 0.1
    lora_rank: int | None = None
    upper_layers: int | None = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    save_seconds: float = 300.0

    def __post_init__(self) -> None:
        numbers = [value for value in dataclasses.astuple(self) if isinstance(value, float)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a recipe's numbers must be finite")
        if not (self.epochs > 0 and self.learning_rate > 0):
            raise ValueError("epochs and learning rate must be above 0")
        least = [number for number in (self.lora_rank, self.upper_layers) if number is not None]
        if min(self.batch, self.micro_batch, *least) < 1:
            raise ValueError("batch, micro-batch, LoRA rank and upper layers must be at least 1")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError("label smoothing must be at least 0 and below 0.5")
        if min(self.auxiliary, self.centre, self.weight_decay, self.save_seconds) < 0:
            raise ValueError("weights of losses, weight decay and seconds must not be negative")
        if self.lora_rank is not None and self.upper_layers is not None:
            raise ValueError("train either low-rank adapters or the upper layers")
