"""The page of an evaluation: one HTML file without scripts that fetches nothing."""

from __future__ import annotations

from pathlib import Path

from winnow.models.reporting import numbers
from winnow.models.reporting.pages import environment
from winnow.server.rm.evaluate import Evaluation
from winnow.server.rm.groups import groups, share
from winnow.server.rm.plots import plots

TEMPLATE = "page.html.jinja"


def render(found: Evaluation) -> bytes:
    """Return the page in UTF-8."""
    templates = environment(Path(__file__).parent)
    templates.filters |= {
        name: getattr(numbers, name) for name in ("number", "signed", "count", "percent", "percent_span")
    }
    templates.filters["share"] = share
    page = templates.get_template(TEMPLATE).render(
        found=found, plots=plots(found.models), groups=groups([model.pairs for model in found.models])
    )
    return page.encode()
