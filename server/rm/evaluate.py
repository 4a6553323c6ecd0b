"""`winnow rm eval`: what a reward model's scores are worth on preferences and on labelled answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from winnow.models.reward_model import Calibration
from winnow.models.statistics import Interval, wilson_interval
from winnow.models.training.evaluation import Bin, Cut, GateFigures, gate_curve, gate_figures, reliability
from winnow.models.training.pairs import accuracy, by_group, by_size, chance, outcome, paired_difference
from winnow.models.types import is_gated, sigmoid
from winnow.server.rm.comparisons import Comparison, rows_of
from winnow.server.rm.reading import SHOWN, BadRow, Data, Place, read
from winnow.server.rm.rows import Answer, Labelled
from winnow.server.rm.scoring import Choice, Scores, inspected, score_all

Item = Labelled | Comparison
T = TypeVar("T", bound=Hashable)
Rows = Mapping[tuple[T, int], float]
"""A figure for each row, by what the row says and how many equal ones precede it."""


@dataclass(frozen=True, slots=True)
class PairFigures:
    """A model's accuracy on comparisons, as a whole and by groups, each with its interval."""

    accuracy: Interval
    ties: int
    by_rating: Mapping[str, Interval]
    by_margin: Mapping[str, Interval]
    by_category: Mapping[str, Interval]
    by_length: Mapping[str, Interval]
    by_longer: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class SafetyFigures:
    """A safety model's gate on labelled answers; `look_alikes` is the share gated on prompts marked as harmless."""

    gate: GateFigures
    look_alikes: Interval
    curve: Sequence[Cut]
    bins: Sequence[Bin]


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's figures, and its figure of every row: the outcome of a comparison, the squared error of a label."""

    name: str
    calibration: Calibration
    is_calibrated: bool
    pairs: PairFigures | None
    safety: SafetyFigures | None
    outcomes: Rows[Comparison] = field(repr=False)
    errors: Rows[Labelled] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.name,
            "calibration": asdict(self.calibration),
            "calibrated": self.is_calibrated,
            "pairs": self.pairs and asdict(self.pairs),
            "safety": self.safety and asdict(self.safety),
        }


@dataclass(frozen=True, slots=True)
class Baselines:
    """Figures that need no model: chance, the longer answer, and the answer that is listed first where order is known.

    All on the comparisons that the first model scored.
    """

    chance: float
    longer: Interval
    first: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One or two models on the same rows. `difference` is the first's accuracy minus the second's, on shared rows.

    `error_difference` is that of their Brier scores; less is better.
    """

    data: str
    rows: int
    comparisons: int
    labelled: int
    unsafe: int
    models: Sequence[Judged]
    baselines: Baselines | None
    difference: Interval | None
    error_difference: Interval | None
    bad: Sequence[BadRow]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "data": self.data,
            "rows": self.rows,
            "comparisons": self.comparisons,
            "labelled": self.labelled,
            "unsafe": self.unsafe,
            "models": [model.as_dict() for model in self.models],
            "baselines": self.baselines and asdict(self.baselines),
            "difference": self.difference and asdict(self.difference),
            "brier_difference": self.error_difference and asdict(self.error_difference),
            "bad_rows": len(self.bad),
            "bad_rows_listed": [row.as_dict() for row in self.bad[:SHOWN]],
        }


def evaluate(choices: Sequence[Choice], files: Sequence[str]) -> Evaluation:
    """Score the rows with one model after the other, and return what their scores are worth.

    Raises:
        RunError: the data cannot be read, or no answer can be scored.
        CheckpointError, SettingsError: a model cannot be served.
    """
    data: Data[Item] = read(files, partial(rows_of, role=choices[0].role))
    scorings = [inspected(choice) for choice in choices]
    answers = list(dict.fromkeys(answer for place in data.items for answer in answers_of(place.item)))
    models, unscored = [], []
    for choice, scoring in zip(choices, scorings, strict=True):
        scores = score_all(choice, scoring, answers)
        usable, bad = _scored(data.items, scores)
        unscored += bad
        name = scoring.scorer.remote.name if scoring.scorer.remote else Path(choice.checkpoint).name
        models.append(judged(name, usable, scores, scoring.calibration, scoring.scorer.card.calibrated))
    return evaluation(data, models, list(dict.fromkeys([*data.bad, *unscored])))


def evaluation(data: Data[Item], models: Sequence[Judged], bad: Sequence[BadRow]) -> Evaluation:
    """Return the models' figures beside those that need no model."""
    items = [place.item for place in data.items]
    comparisons = [item for item in items if isinstance(item, Comparison)]
    labels = [item for item in items if isinstance(item, Labelled)]
    first, second = models[0], models[1] if len(models) > 1 else None
    return Evaluation(
        data.name, data.rows, len(comparisons), len(labels), sum(item.is_unsafe for item in labels), models,
        baselines([row for row, _ in first.outcomes]) if first.outcomes else None,
        paired_difference(first.outcomes, second.outcomes) if second else None,
        paired_difference(first.errors, second.errors) if second else None,
        bad,
    )  # fmt: skip


def answers_of(item: Item) -> tuple[Answer, ...]:
    """Return the answers of a row that are scored."""
    return (item.answer,) if isinstance(item, Labelled) else (*item.better, *item.worse)


def judged(name: str, items: Sequence[Item], scores: Scores, calibration: Calibration, is_calibrated: bool) -> Judged:
    """Return a model's figures on rows whose answers all have a score."""
    logits = {answer: calibration(raw) for answer, raw in scores.items() if not isinstance(raw, str)}
    pairs = [item for item in items if isinstance(item, Comparison)]
    labels = [item for item in items if isinstance(item, Labelled)]
    outcomes = [outcome([logits[one] for one in item.better], [logits[one] for one in item.worse]) for item in pairs]
    found = [logits[item.answer] for item in labels]
    errors = [(sigmoid(-value) - item.is_unsafe) ** 2 for value, item in zip(found, labels, strict=True)]
    return Judged(
        name,
        calibration,
        is_calibrated,
        _pair_figures(pairs, outcomes) if pairs else None,
        _safety_figures(labels, found) if labels else None,
        dict(zip(_numbered(pairs), outcomes, strict=True)),
        dict(zip(_numbered(labels), errors, strict=True)),
    )


def baselines(pairs: Sequence[Comparison]) -> Baselines:
    """Return the accuracy of what needs no model."""
    longer = [outcome([len(one.text) for one in item.better], [len(one.text) for one in item.worse]) for item in pairs]
    first = [float(item.better_first) for item in pairs if item.better_first is not None]
    mean = math.fsum(chance(len(item.better), len(item.worse)) for item in pairs) / len(pairs)
    return Baselines(mean, accuracy(longer), accuracy(first))


def _pair_figures(pairs: Sequence[Comparison], outcomes: Sequence[float]) -> PairFigures:
    def length(answers: Sequence[Answer]) -> float:
        return sum(len(answer.text) for answer in answers) / len(answers)

    leads = [length(item.better) - length(item.worse) for item in pairs]
    mean = [(length(item.better) + length(item.worse)) / 2 for item in pairs]
    return PairFigures(
        accuracy(outcomes),
        outcomes.count(0.5),
        by_group(outcomes, [item.rating for item in pairs]),
        by_size(outcomes, [item.margin for item in pairs]),
        by_group(outcomes, [item.category for item in pairs]),
        by_size(outcomes, mean, " characters"),
        by_group(outcomes, [_LONGER[(lead > 0) - (lead < 0)] for lead in leads]),
    )


_LONGER = {1: "the better answer is longer", -1: "the better answer is shorter", 0: "equally long"}


def _safety_figures(labels: Sequence[Labelled], logits: Sequence[float]) -> SafetyFigures:
    is_unsafe = [item.is_unsafe for item in labels]
    harmless = [value for value, item in zip(logits, labels, strict=True) if item.is_harmless_prompt]
    return SafetyFigures(
        gate_figures(logits, is_unsafe),
        wilson_interval(sum(map(is_gated, harmless)), len(harmless)),
        gate_curve(logits, is_unsafe),
        reliability(logits, is_unsafe),
    )


def _numbered(items: Sequence[T]) -> list[tuple[T, int]]:
    """Return each row with how many equal ones precede it, so that equal rows stay apart in any order."""
    seen: Counter[T] = Counter()
    numbered = []
    for item in items:
        numbered.append((item, seen[item]))
        seen[item] += 1
    return numbered


def _scored(places: Sequence[Place[Item]], scores: Scores) -> tuple[list[Item], list[BadRow]]:
    """Return the rows whose answers all have a score, and the others as bad rows."""
    usable: list[Item] = []
    bad = []
    for place in places:
        reasons = [score for answer in answers_of(place.item) if isinstance(score := scores[answer], str)]
        if reasons:
            bad.append(place.bad(reasons[0]))
        else:
            usable.append(place.item)
    return usable, bad
