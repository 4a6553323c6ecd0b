"""The order that `winnow rm train` is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow.models.training.examples import Recipe
from winnow.server.rm.lessons import Kind
from winnow.server.rm.margins import Margins
from winnow.server.rm.mixing import Part


@dataclass(frozen=True, slots=True)
class Order:
    """The training that is wanted: its start, data and folder. `dtype` None keeps bfloat16, all others become float32.

    `held_out` is the share of the prompts that is measured on and not trained on.
    """

    parts: Sequence[Part]
    init: str
    kind: Kind
    out: Path
    recipe: Recipe
    margins: Margins = "small"
    held_out: float = 0.1
    card: Path | None = None
    context: int | None = None
    dtype: str | None = None
    force: bool = False

    @property
    def name(self) -> str:
        """The name of the model to train, which is its folder's."""
        return self.out.resolve().name
