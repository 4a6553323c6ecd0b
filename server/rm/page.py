"""The page of an evaluation: one HTML file without scripts that fetches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.models.reporting import numbers
from winnow.models.reporting.pages import environment
from winnow.server.rm.evaluate import Evaluation
from winnow.server.rm.groups import SAFETY, Words, groups, share
from winnow.server.rm.plots import plots

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "page.html.jinja"


def render(found: Evaluation, words: Words = SAFETY) -> bytes:
    """Return the page in UTF-8."""
    page = environment_of_figures().get_template(TEMPLATE).render(found=found, **figures(found, words))
    return page.encode()


def figures(found: Evaluation, words: Words = SAFETY) -> dict[str, Any]:
    """Return what `figures.html.jinja` shows beside an evaluation."""
    return {
        "words": words,
        "plots": plots(found.models, words),
        "groups": groups([model.pairs for model in found.models]),
    }


def environment_of_figures() -> Environment:
    """Return the templates of this folder, with the formats of figures."""
    templates = environment(Path(__file__).parent)
    templates.filters |= {
        name: getattr(numbers, name) for name in ("number", "signed", "count", "percent", "percent_span")
    }
    templates.filters["share"] = share
    return templates
