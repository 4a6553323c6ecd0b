"""The page of a result: one HTML file. The template escapes all text that comes from a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from winnow.loadtests.estimates import QUANTITIES, Quantity
from winnow.loadtests.formatting import candidates_used, explain_ranges, format_number, format_range, notes
from winnow.loadtests.report.plots import draw
from winnow.loadtests.results import Result, document
from winnow.loadtests.scenario import Point
from winnow.loadtests.tables import compare
from winnow.models.reporting.pages import environment, flattened
from winnow.models.statistics import Interval

TEMPLATE = "page.html.jinja"
FACTS = (
    "answered_rate", "candidates_rate", "whole_p50_ms", "whole_p99_ms", "first_byte_p50_ms", "score_tail_p50_ms",
    "good_percent", "wasted_percent",
)  # fmt: skip
"""Quantities in large digits at the top, if there is one point and one target."""


def render(result: Result) -> bytes:
    """Return the page in UTF-8."""
    templates = environment(Path(__file__).parent)
    templates.filters |= {"figure": format_number, "span": format_range}
    content = document(result)
    page = templates.get_template(TEMPLATE).render(
        result=result,
        sections=[_section(result, point) for point in result.points],
        facts=_facts(result),
        plots=list(draw(result)),
        notes=notes(result),
        ranges=explain_ranges(result),
        used=candidates_used(result),
        scenario=[(name, value) for name, value in flattened(content["scenario"]) if value is not None],
        machine=list(flattened(content["machine"])),
        systems=content["systems"],
    )
    return page.encode("utf-8", "replace")


def _section(result: Result, point: Point) -> dict[str, Any]:
    """Return the template's values for a point: a row for each known quantity, and the comparisons of targets."""
    found = {name: result.estimates(point, name) for name in result.names}
    rows = [
        (quantity, [values.get(quantity.name) for values in found.values()])
        for quantity in QUANTITIES
        if any(quantity.name in values for values in found.values())
    ]
    requests = [sum(repeat.measures.requests for repeat in result.of(point, name)) for name in result.names]
    comparisons = [(comparison.target, list(compare(comparison))) for comparison in result.comparisons(point)]
    return {"point": point, "rows": rows, "requests": requests, "comparisons": comparisons}


def _facts(result: Result) -> list[tuple[Quantity, Interval]]:
    if len(result.points) != 1 or len(result.names) != 1:
        return []
    found = result.estimates(result.points[0], result.names[0])
    return [
        (quantity, found[quantity.name]) for quantity in QUANTITIES if quantity.name in FACTS and quantity.name in found
    ]
