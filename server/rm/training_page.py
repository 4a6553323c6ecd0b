"""The page of a training: its recipe, its curve, and what the model is worth on held-out prompts."""

from __future__ import annotations

from winnow.server.rm import curve
from winnow.server.rm.groups import words_of
from winnow.server.rm.page import environment_of_figures, figures
from winnow.server.rm.trained import Trained

TEMPLATE = "training.html.jinja"


def render(report: Trained) -> bytes:
    """Return the page in UTF-8: one file without scripts that fetches nothing."""
    page = (
        environment_of_figures()
        .get_template(TEMPLATE)
        .render(
            report=report,
            material=report.material,
            recipe=report.recipe,
            found=report.evaluation,
            drawings=list(curve.drawings(report.curve)),
            size=curve,
            **figures(report.evaluation, words_of(report.order.kind)),
        )
    )
    return page.encode()
