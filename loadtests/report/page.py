"""The page of a result: one HTML file, no script, nothing fetched. Whatever comes from a server is escaped by the template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from winnow.loadtests.estimates import QUANTITIES, Estimate, Quantity
from winnow.loadtests.formatting import figure, notes, ranges, span, used
from winnow.loadtests.report.plots import draw
from winnow.loadtests.results import Comparison, Result, document
from winnow.loadtests.tables import compared

TEMPLATE = "page.html.jinja"
FACTS = (
    "answered_rate", "candidates_rate", "whole_p50_ms", "whole_p99_ms", "first_byte_p50_ms", "score_tail_p50_ms", "good_percent",
    "wasted_percent",
)  # fmt: skip
"""What stands in large digits, where there is one point and one system."""


def render(result: Result) -> bytes:
    """The page, in UTF-8."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "span": span}
    known = document(result)
    page = environment.get_template(TEMPLATE).render(
        result=result,
        sections=[_section(result, point) for point in result.points],
        facts=_facts(result),
        plots=list(draw(result)),
        notes=notes(result),
        ranges=ranges(result),
        used=used(result),
        scenario=_flat(known["scenario"], ""),
        machine=_flat(known["machine"], ""),
        systems=known["systems"],
    )
    return page.encode("utf-8", "replace")


def _section(result: Result, point: Any) -> dict[str, Any]:
    """What the template shows of a point: a row for each quantity that is known, and how systems compare."""
    found = {name: result.estimates(point, name) for name in result.names}
    rows = [
        (quantity, [values.get(quantity.name) for values in found.values()])
        for quantity in QUANTITIES
        if any(quantity.name in values for values in found.values())
    ]
    counts = {name: [repeat.measures for repeat in result.of(point, name)] for name in result.names}
    comparisons: list[tuple[Comparison, list[str]]] = [
        (comparison, list(compared(comparison))) for comparison in result.comparisons(point)
    ]
    requests = [sum(measures.requests for measures in each) for each in counts.values()]
    return {"point": point, "rows": rows, "requests": requests, "comparisons": comparisons}


def _facts(result: Result) -> list[tuple[Quantity, Estimate]]:
    if len(result.points) != 1 or len(result.names) != 1:
        return []
    found = result.estimates(result.points[0], result.names[0])
    return [
        (quantity, found[quantity.name]) for quantity in QUANTITIES if quantity.name in FACTS and quantity.name in found
    ]


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    """Nested values as rows of a dotted name and a value."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
