"""The report of a training: what was trained on, and what the model is worth on prompts that it never saw."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from winnow.models.errors import NoCalibration
from winnow.models.reward_model import IDENTITY, Calibration
from winnow.models.training.examples import Recipe
from winnow.models.training.splits import held_out
from winnow.server.rm.calibrate import Calibrated, calibrated, gathered
from winnow.server.rm.comparisons import Comparison
from winnow.server.rm.curve import Point
from winnow.server.rm.evaluate import Evaluation, Item, answers_of, evaluation, judged
from winnow.server.rm.order import Order
from winnow.server.rm.reading import SHOWN, Data, Place
from winnow.server.rm.rows import Labelled
from winnow.server.rm.scoring import Scores
from winnow.server.rm.training_data import Material


@dataclass(frozen=True, slots=True)
class Model:
    """A model's scores of the held-out answers, and what they mean."""

    name: str
    scores: Scores
    calibration: Calibration = IDENTITY
    is_calibrated: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model. `uncalibrated` says why it has no calibration; None if it has one.

    `evaluation` is of the held-out prompts. Where a calibration was fitted, that is of the labels on one half of them,
    and labels are evaluated on the other.
    """

    order: Order
    recipe: Recipe
    dtype: str
    begun_with: str
    date: datetime.date
    material: Material
    evaluation: Evaluation
    calibration: Calibrated | None
    uncalibrated: str | None
    curve: Sequence[Point]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found = self.material
        return {
            "name": self.order.name,
            "kind": self.order.kind,
            "init": self.begun_with,
            "data": found.name,
            "date": self.date.isoformat(),
            "dtype": self.dtype,
            "margins": self.order.margins,
            "recipe": asdict(self.recipe),
            "rows": found.rows,
            "prompts": {"all": found.prompts, "held_out": found.held_prompts},
            "trained_on": {
                "examples": len(found.examples),
                "comparisons": found.comparisons,
                "labels": found.labels,
                "comparisons_without_margin": found.without_margin,
                "parts": [asdict(use) | {"left_over": use.left_over} for use in found.uses],
            },
            "held_out": self.evaluation.as_dict(),
            "calibration": self.calibration and self.calibration.as_dict(),
            "uncalibrated": self.uncalibrated,
            "curve": [asdict(point) for point in self.curve],
            "bad_rows": len(found.bad),
            "bad_rows_listed": [row.as_dict() for row in found.bad[:SHOWN]],
        }


def calibration_of(found: Material, scores: Scores, seed: int) -> tuple[Calibrated | None, str | None]:
    """Return the calibration of a model on the held-out labels, or None and the reason."""
    places = [place for place in found.held_data.items if isinstance(place.item, Labelled)]
    if not places:
        return None, "there are no labelled answers among those held out"
    labels = [Place(place.file, place.line, place.item) for place in places if isinstance(place.item, Labelled)]
    scored, _ = gathered(Data((found.name,), labels), scores)
    try:
        return calibrated(found.name, scored, IDENTITY, seed=seed), None
    except NoCalibration as reason:
        return None, str(reason)


def evaluation_of(found: Material, models: Sequence[Model], calibration: Calibrated | None) -> Evaluation:
    """Return what models are worth on the held-out prompts; labels count where no calibration was fitted on them."""
    data: Data[Item] = found.held_data
    if calibration:
        prompts = {place.item.answer.prompt for place in data.items if isinstance(place.item, Labelled)}
        apart = held_out(prompts, calibration.seed)
        kept = [
            place for place in data.items if isinstance(place.item, Comparison) or place.item.answer.prompt in apart
        ]
        data = Data(data.names, kept, rows=data.rows)
    items = [place.item for place in data.items]
    answers = {answer for item in items for answer in answers_of(item)}
    found_models = [
        judged(
            model.name,
            items,
            {answer: score for answer, score in model.scores.items() if answer in answers},
            model.calibration,
            model.is_calibrated,
        )
        for model in models
    ]
    return evaluation(data, found_models, [])
