"""`winnow report`: the gain of choosing the best of N, as one page with plots, made from a run's journal alone.

Covers reward against N, temperatures, distributions, length bias, distance from the policy and examples. It knows
rewards only, not whether answers are true.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from winnow.models.errors import RunError
from winnow.server.distill import manifest
from winnow.server.distill.files import write
from winnow.server.distill.gains import learnt_from, write_gains
from winnow.server.distill.report.data import data
from winnow.server.distill.report.page import render
from winnow.server.distill.report.plots import NAMES, draw
from winnow.server.distill.report.survey import gather

FOLDER = "report"
PAGE = "index.html"
DATA = "report.json"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """The options of a report.

    `min_gain` is the R_c, above 0, that a doubling of N must gain to be worth it. `examples` is the number of prompts
    shown with their answers, from 0.
    """

    min_gain: float = 0.01
    examples: int = 10


DEFAULTS = ReportOptions()


def report(folder: Path, out: Path | None = None, options: ReportOptions = DEFAULTS) -> Path:
    """Write the report on the run in `folder` and return the path of its page.

    The page is `index.html` in `out`, by default `folder`/report. Its plots are embedded, and lie beside it as PNGs;
    its figures are in `report.json`.
    The table of expected gains is `gains.json` in `out`, by default in `folder`, if the run tells any.
    Equal journals give equal bytes. The run may still be in progress; without answers the page says so.

    Raises:
        RunError: `folder` holds no run, or the report cannot be written.
        GainsError: `gains.json` cannot be written.
    """
    settings = manifest.load(folder)
    table = learnt_from(folder)
    findings = gather(folder, options.examples, table)
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
    write(page.with_name(DATA), data(findings))
    write(page, render(findings, settings, drawn, options.min_gain, write_gains(folder, out)))
    return page
