"""`winnow rm calibrate`: labelled answers → raw logits → scale and bias → a card, with what they are worth."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winnow.models.cards.card import FILE
from winnow.models.cards.evidence import CalibrationRecord
from winnow.models.cards.writing import with_calibration
from winnow.models.engines.scorers import card_text_of
from winnow.models.errors import SettingsError
from winnow.models.reward_model import Calibration
from winnow.models.training.calibration import (
    Fit,
    Scored,
    fit,
    require_both_labels,
    require_enough,
    require_sense,
    with_precision,
)
from winnow.models.training.evaluation import GateFigures, gate_figures
from winnow.models.training.splits import held_out
from winnow.server.rm.comparisons import safety_labels
from winnow.server.rm.reading import SHOWN, BadRow, Data, read
from winnow.server.rm.rows import Labelled
from winnow.server.rm.scoring import Choice, Scores, inspected, score_all


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration that was found: the fit, the scale and bias of the card, and the gate before and after.

    `before` and `after` are figures of the held-out half, `fitted` and `measured` the answers of either half.
    """

    data: str
    found: Fit
    current: Calibration
    calibration: Calibration
    before: GateFigures
    after: GateFigures
    fitted: int
    measured: int
    measured_unsafe: int
    precision: float | None
    seed: int

    @property
    def record(self) -> CalibrationRecord:
        """The record that the card keeps of it."""
        figures = {"precision": self.after.precision.value, "recall": self.after.recall.value}
        shares = {name: round(value, 4) for name, value in figures.items() if value == value}
        return CalibrationRecord(data=self.data, n=self.fitted, date=datetime.date.today(), **shares)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "data": self.data,
            "scale": self.calibration.scale,
            "bias": self.calibration.bias,
            "current": asdict(self.current),
            "fit": {"scale": asdict(self.found.scale), "bias": asdict(self.found.bias)},
            "separable": self.found.is_separable,
            "precision_wanted": self.precision,
            "seed": self.seed,
            "answers": {"fitted": self.fitted, "held_out": self.measured, "held_out_unsafe": self.measured_unsafe},
            "before": asdict(self.before),
            "after": asdict(self.after),
            "ranks_changed": False,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished command: the calibration, the card that was written, and the rows that could not be used."""

    calibrated: Calibrated
    card: Path
    bad: Sequence[BadRow]
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        listed = [row.as_dict() for row in self.bad[:SHOWN]]
        return {**self.calibrated.as_dict(), "card": str(self.card), "rows": self.rows, "bad_rows": len(self.bad),
                "bad_rows_listed": listed}  # fmt: skip


def calibrate(
    choice: Choice, files: Sequence[str], *, precision: float | None, out: Path | None, seed: int, force: bool
) -> Outcome:
    """Calibrate a safety model on labelled answers, and write its card.

    Raises:
        SettingsError: the card has no place, or would replace another.
        RunError: the data cannot be read, or no answer can be scored.
        NoCalibration: the data do not say what a score means.
        CheckpointError: the model cannot be served.
    """
    target = _target(choice, out, force=force)
    import sklearn  # type: ignore[import-untyped]  # noqa: F401, where it is missing, that is said before the work

    data = read(files, safety_labels)
    scoring = inspected(choice)
    text, source = card_text_of(scoring.scorer, choice.checkpoint, choice.role, choice.card)
    scores = score_all(choice, scoring, (place.item.answer for place in data.items))
    scored, unscored = gathered(data, scores)
    found = calibrated(data.name, scored, scoring.calibration, precision, seed)
    record, own = found.record, found.calibration
    target.write_text(with_calibration(text, source, own.scale, own.bias, record), encoding="utf-8")
    return Outcome(found, target, [*data.bad, *unscored], data.rows)


def calibrated(
    name: str, scored: Scored, current: Calibration, precision: float | None = None, seed: int = 0
) -> Calibrated:
    """Fit on the answers to half of the prompts and measure on the others; `current` is the card's calibration.

    Raises:
        NoCalibration: the answers do not say what a score means.
    """
    require_enough(scored)
    fitted, measured = scored.split(held_out(scored.prompts, seed))
    require_both_labels(fitted, "is fitted on")
    require_both_labels(measured, "is held out")
    found = fit(fitted)
    require_sense(found, current.scale)
    chosen = found.calibration if precision is None else with_precision(fitted, found.calibration.scale, precision)
    before, after = (
        gate_figures([calibration(raw) for raw in measured.raw], measured.is_unsafe)
        for calibration in (current, chosen)
    )
    return Calibrated(
        name, found, current, chosen, before, after, len(fitted), len(measured), measured.unsafe, precision, seed
    )


def gathered(data: Data[Labelled], scores: Scores) -> tuple[Scored, list[BadRow]]:
    """Return the labelled answers that have a score, in an order of their own, and the others as bad rows."""
    rows, bad = [], []
    for place in data.items:
        score = scores[place.item.answer]
        if isinstance(score, str):
            bad.append(place.bad(score))
        else:
            rows.append((place.item.answer.prompt, score, place.item.is_unsafe))
    # Sorted, because sums of floats depend on their order, and the order of the files must not count.
    prompts, raw, is_unsafe = zip(*sorted(rows), strict=True)
    return Scored(raw, is_unsafe, prompts), bad


def _target(choice: Choice, out: Path | None, *, force: bool) -> Path:
    """Return the card to write, in the checkpoint's folder if there is no `out`.

    Raises:
        SettingsError: there is no such folder, or the card exists.
    """
    folder = Path(choice.checkpoint)
    if out is None and not folder.is_dir():
        raise SettingsError(
            f"{choice.checkpoint} is no folder to write {FILE} to; name a file with --out, and give it to winnow serve "
            f"as --{choice.role}-card"
        )
    target = out / FILE if out and out.is_dir() else out or folder / FILE
    if target.exists() and not force:
        raise SettingsError(f"{target} exists; --force replaces it (all but its scale, bias and calibration is kept)")
    if not target.parent.is_dir():
        raise SettingsError(f"--out: there is no folder {target.parent}")
    return target
