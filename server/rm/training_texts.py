"""The texts that `winnow rm train` prints for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from winnow.models.reporting.numbers import count, percent
from winnow.server.rm import texts
from winnow.server.rm.groups import words_of
from winnow.server.rm.out_folder import PAGE
from winnow.server.rm.reading import summary
from winnow.server.rm.trained import Trained


def tables(report: Trained) -> Iterator[Table]:
    """Yield the tables: the accuracy and the gate on held-out prompts, and the calibration."""
    words = words_of(report.order.kind)
    yield from texts.evaluation_tables(report.evaluation, words)
    if report.calibration:
        yield texts.gate_table(report.calibration, words)


def remarks(report: Trained) -> Iterator[str]:
    """Yield what there is to say besides the tables."""
    found = report.material
    yield (
        f"Trained on {count(found.comparisons)} comparisons and {count(found.labels)} labels; measured on "
        f"{count(found.held_prompts)} of {count(found.prompts)} prompts, which were held out."
    )
    for use in found.uses:
        if use.share is not None:
            left = count(use.left_over)
            yield f"{use.name}: {count(use.used)} of {count(use.examples)} examples used, {left} left over"
    if found.without_margin and report.order.margins != "none":
        part = percent(found.without_margin / found.comparisons)
        yield f"{count(found.without_margin)} comparisons ({part}) have no rating: they were trained with m(r) = 0."
    if report.calibration:
        own = report.calibration.calibration
        yield f"Calibrated on half of the held-out labels: scale {own.scale:.6g}, bias {own.bias:.6g}."
    else:
        yield f"Not calibrated: {report.uncalibrated}."
    yield from texts.differences(report.evaluation)
    yield from summary(found.bad, found.rows)
    yield f"{report.order.out / PAGE}"
