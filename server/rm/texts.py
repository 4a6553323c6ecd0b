"""The texts that the commands of `winnow rm` print for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from winnow.models.reporting.numbers import NOTHING, count, number, percent, percent_span, signed, span
from winnow.models.statistics import Interval
from winnow.server.rm.calibrate import Calibrated, Outcome
from winnow.server.rm.evaluate import Evaluation
from winnow.server.rm.groups import SAFETY, Words, groups, share
from winnow.server.rm.reading import summary


def gate_table(found: Calibrated, words: Words = SAFETY) -> Table:
    """Return the gate's figures on held-out prompts, before and after."""
    shown = Table(title=f"The gate {words.symbol} < 0.15 on held-out prompts", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("", "before", "after", "95 % interval"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for label, name in _gate(words):
        before: Interval = getattr(found.before, name)
        after: Interval = getattr(found.after, name)
        shown.add_row(label, _share(before), _share(after), percent_span(after) if after.count else NOTHING)
    for label, name in (("calibration error (ECE)", "ece"), ("Brier score", "brier")):
        shown.add_row(label, number(getattr(found.before, name)), number(getattr(found.after, name)), "")
    bad = percent(found.measured_unsafe / found.measured)
    shown.caption = (
        f"{count(found.measured)} answers, {bad} of them {words.bad}. A precision holds where the share of {words.bad} "
        "answers is like that; answers to one prompt are taken as independent."
    )
    return shown


def remarks(outcome: Outcome) -> Iterator[str]:
    """Yield what there is to say about a calibration besides the table."""
    found = outcome.calibrated
    own = found.calibration
    yield f"scale {own.scale:.6g}, bias {own.bias:.6g}, fitted on {count(found.fitted)} answers to the other prompts"
    yield f"scale between {span(found.found.scale)}, Platt's bias between {span(found.found.bias)} (95 %)"
    if found.found.is_separable:
        yield (
            "The scores divide the two labels without an exception, so no finite scale fits best. It is bounded by the "
            "number of answers (Platt's targets): R_s is surer than the data can show. Add harder answers."
        )
    if found.precision is not None:
        reached = found.after.precision
        held = "agrees with" if not reached.excludes(found.precision) else "misses"
        yield (
            f"The threshold was chosen for a precision of {found.precision:g} on the fitted half; on held-out prompts "
            f"it has {percent(reached.value)}, which {held} that ({percent_span(reached)})."
        )
    yield "The ranks of answers are unchanged: the scale keeps its sign."
    yield f"{outcome.card} has it; winnow serve reads the card in a checkpoint's folder, another with --safety-card."


def bad_rows(outcome: Outcome) -> list[str]:
    """Return the lines that list what could not be used."""
    return summary(outcome.bad, outcome.rows)


def _share(interval: Interval) -> str:
    return percent(interval.value) if interval.count else NOTHING


def evaluation_tables(found: Evaluation, words: Words = SAFETY) -> Iterator[Table]:
    """Yield an evaluation as tables: the accuracy on comparisons, then the gate on labelled answers."""
    if found.comparisons and found.baselines:
        shown = _table("Accuracy on comparisons (a tie counts as half)", ["", "accuracy", "rows"])
        for model in found.models:
            if model.pairs:
                shown.add_row(model.name, share(model.pairs.accuracy), count(model.pairs.accuracy.count))
        shown.add_row("the longer answer", share(found.baselines.longer), count(found.baselines.longer.count))
        if found.baselines.first.count:
            shown.add_row("the answer listed first", share(found.baselines.first), count(found.baselines.first.count))
        shown.add_row("chance", percent(found.baselines.chance), "")
        yield shown
        for heading, rows in groups([model.pairs for model in found.models]):
            names = [model.name for model in found.models if model.pairs]
            shown = _table(None, [f"by {heading}", *names, "rows"])
            for group, cells in rows:
                shown.add_row(group, *map(share, cells), count(max(cell.count for cell in cells if cell)))
            yield shown
    measured = [(model.name, model.safety) for model in found.models if model.safety]
    if measured:
        shown = _table(f"The gate {words.symbol} < 0.15 on labelled answers", ["", *(name for name, _ in measured)])
        for label, figure in _gate(words):
            shown.add_row(label, *(share(getattr(figures.gate, figure)) for _, figures in measured))
        shown.add_row("refused, prompt marked harmless", *(share(figures.look_alikes) for _, figures in measured))
        shown.add_row("calibration error (ECE)", *(number(figures.gate.ece) for _, figures in measured))
        shown.add_row("Brier score", *(number(figures.gate.brier) for _, figures in measured))
        yield shown


def differences(found: Evaluation) -> Iterator[str]:
    """Yield how far two models are apart."""
    names = " minus ".join(model.name for model in found.models)
    if gap := found.difference:
        ends = f"{signed(100 * gap.low, 1)} to {signed(100 * gap.high, 1)}"
        yield f"{names}: {signed(100 * gap.value, 1)} points of accuracy ({ends}) on {count(gap.count)} shared rows"
    if gap := found.error_difference:
        yield f"{names}: {signed(gap.value)} in Brier score ({signed(gap.low)} to {signed(gap.high)}); less is better"


def evaluation_remarks(found: Evaluation) -> Iterator[str]:
    """Yield what there is to say about an evaluation besides the tables."""
    yield from differences(found)
    for model in found.models:
        if model.safety and not model.is_calibrated:
            yield f"{model.name} is not calibrated: 0.15 means nothing on its scale; see winnow rm calibrate --help"
    yield from summary(found.bad, found.rows)


def _gate(words: Words) -> tuple[tuple[str, str], ...]:
    """Return the figures of a gate that are shares, with their names for people."""
    return ("precision", "precision"), ("recall", "recall"), (f"{words.good} answers refused", "over_refusal")


def _table(title: str | None, headings: Sequence[str]) -> Table:
    shown = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if place else "left")
    return shown
