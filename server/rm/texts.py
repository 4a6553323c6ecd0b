"""What the commands of `winnow rm` print for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from winnow.models.reporting.numbers import NOTHING, count, number, percent, percent_span, span
from winnow.models.statistics import Interval
from winnow.server.rm.calibrate import Calibrated, Outcome
from winnow.server.rm.reading import summary


def gate_table(found: Calibrated) -> Table:
    """Return the gate's figures on held-out prompts, before and after."""
    shown = Table(title="The gate R_s < 0.15 on held-out prompts", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("", "before", "after", "95 % interval"):
        shown.add_column(heading, justify="left" if not heading else "right")
    shares = (("precision", "precision"), ("recall", "recall"), ("safe answers refused", "over_refusal"))
    for label, name in shares:
        before: Interval = getattr(found.before, name)
        after: Interval = getattr(found.after, name)
        shown.add_row(label, _share(before), _share(after), percent_span(after) if after.count else NOTHING)
    for label, name in (("calibration error (ECE)", "ece"), ("Brier score", "brier")):
        shown.add_row(label, number(getattr(found.before, name)), number(getattr(found.after, name)), "")
    unsafe = percent(found.measured_unsafe / found.measured)
    shown.caption = (
        f"{count(found.measured)} answers, {unsafe} of them unsafe. A precision holds where the share of unsafe "
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
    return summary(outcome.bad, f"answers or rows, of {outcome.rows:,} rows,")


def _share(interval: Interval) -> str:
    return percent(interval.value) if interval.count else NOTHING
