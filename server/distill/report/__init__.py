"""`winnow report`: what choosing was worth, as one page with plots, made from a run's journal alone.

Covers how reward grows with N, temperatures, distributions, length bias, drift and examples. It knows rewards only: whether
answers are true is for others to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from winnow.models.errors import RunError
from winnow.server.distill import manifest
from winnow.server.distill.files import write
from winnow.server.distill.report.album import NAMES, draw
from winnow.server.distill.report.page import render
from winnow.server.distill.report.survey import gather

FOLDER = "report"
PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """`min_gain`: below this much R_c, above 0, a doubling of N counts as no longer worth it. `examples`: how many prompts are
    shown with their answers, 0 for none."""

    min_gain: float = 0.01
    examples: int = 10


DEFAULTS = ReportOptions()


def report(folder: Path, out: Path | None = None, options: ReportOptions = DEFAULTS) -> Path:
    """Write the report on the run in `folder`, and return its page.

    The page is `index.html` in `out`, by default `folder`/report, with its plots as PNGs beside it; it needs none of them. Equal
    journals give equal bytes. A run that is still being written may be read; one without answers gives a page that says so.

    Raises:
        RunError: `folder` holds no run, or the report cannot be written.
    """
    settings = manifest.load(folder)
    findings = gather(folder, options.examples)
    drawn = list(draw(findings))
    page = (out or folder / FOLDER) / PAGE
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        for name in NAMES - {plot.name for plot in drawn}:
            (page.parent / f"{name}.png").unlink(missing_ok=True)  # an older report had it
    except OSError as error:
        raise RunError(f"{page.parent} cannot be written: {error.strerror}") from None
    for plot in drawn:
        write(page.parent / f"{plot.name}.png", plot.png)
    write(page, render(findings, settings, drawn, options.min_gain))
    return page
