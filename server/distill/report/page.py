"""The page of a report: one HTML file that needs nothing else, no script and no network.

Whatever comes from a run is escaped by the template, and made visible first. Nothing on the page depends on when or where it
was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from winnow.models.statistics import Interval, kl_bound
from winnow.models.types import SAFETY_THRESHOLD
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.report import text
from winnow.server.distill.report.album import Plot
from winnow.server.distill.report.answers import Kind
from winnow.server.distill.report.counts import Group
from winnow.server.distill.report.findings import FEW_PROMPTS, LONGER, STRONG_RHO, Findings
from winnow.server.distill.report.plots import BRANCHES, kind_label

TEMPLATE = "report.html.jinja"
REASONS = {"gain": "large gain", "unsafe": "unsafe winner", "low": "low winner"}


def render(findings: Findings, manifest: Manifest, plots: Sequence[Plot], min_gain: float) -> bytes:
    """The page, in UTF-8. `plots` are shown where the template names them; those that are missing are left out."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(text, name) for name in ("number", "signed", "count", "percent", "span", "percent_span")
    }
    page = environment.get_template(TEMPLATE).render(
        findings=findings,
        tally=findings.tally,
        plots={plot.name: plot for plot in plots},
        manifest=list(_flat(manifest, "")),
        models=_models(manifest),
        source=_source(manifest),
        notes=notes(findings),
        kind_rows=_kind_rows(findings),
        hidden_kinds=len(findings.tally.kinds()) - len(findings.kinds) if findings.kinds else 0,
        enough=enough_sentence(findings, min_gain),
        warnings=length_warnings(findings),
        categories=_categories(findings.tally.categories),
        kl_bound=kl_bound,
        share=text.share,
        kind_label=kind_label,
        kind_of=Kind.of,
        reasons=REASONS,
        branches={branch: label for branch, (label, _) in BRANCHES.items()},
        rules={"gate": SAFETY_THRESHOLD, "few": FEW_PROMPTS, "rho": STRONG_RHO, "longer": LONGER},
    )
    return page.encode()


def _finalize(value: Any) -> Any:
    """What the template writes for a value, before it is escaped."""
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def enough_sentence(findings: Findings, min_gain: float) -> str:
    """Where more candidates stop being worth `min_gain` of R_c, and how sure that is."""
    doublings, largest = findings.doublings, findings.candidates
    if not doublings:
        return f"With K = {largest} there is no doubling to measure."
    size = findings.enough(min_gain)
    last = doublings[-1]
    if size is None:
        sentence = (
            f"Not reached within K = {largest}: going from N = {last.size} to {2 * last.size} still gains "
            f"{text.signed(last.gain.mean)} ({text.span(last.gain)}), at least {min_gain:g}."
        )
        unsure = last.gain.low < min_gain
    else:
        following = [doubling for doubling in doublings if doubling.size >= size]
        gain = following[0].gain
        sentence = (
            f"Beyond N = {size} the next doubling gains less than {min_gain:g} of R_c: going to {2 * size} gains "
            f"{text.signed(gain.mean)} ({text.span(gain)})."
        )
        unsure = any(doubling.gain.high >= min_gain for doubling in following)
    return sentence + (" The interval reaches across that limit, so more prompts may move this." if unsure else "")


def length_warnings(findings: Findings) -> list[str]:
    """What to beware of, by the rules of `Length`; empty if nothing."""
    length, found = findings.length, []
    if length is None:
        return []
    if length.follows_length and length.rho is not None:
        what = "longer" if length.rho.mean > 0 else "shorter"
        found.append(
            f"Within a prompt, {what} answers get higher rewards: rank correlation {text.signed(length.rho.mean, 2)} "
            f"({text.span(length.rho, 2)}). A policy trained on the winners may learn to be {what}, not better."
        )
    if length.winners_are_longer:
        found.append(
            f"Winners are {text.percent(length.longer.mean)} longer than the mean answer to their prompt "
            f"({text.percent_span(length.longer)})."
        )
    return found


def notes(findings: Findings) -> list[str]:
    """What a reader has to know of how the curves came about."""
    tally, found = findings.tally, []
    if findings.is_partial:
        found.append(
            f"Curves and intervals come from a random sample of {text.count(findings.kept)} of the {text.count(tally.prompts)} "
            "prompts; counts, shares and distributions from all."
        )
    if findings.kept < FEW_PROMPTS:
        found.append(f"With fewer than {FEW_PROMPTS} prompts the intervals are too narrow: conclude nothing from them.")
    if tally.failed:
        found.append(
            "Some candidates failed. A prompt counts only for the N that it has scored candidates for, so the last points rest on "
            "fewer prompts (hollow where on fewer than half), and are compared over those alone."
        )
    if findings.kinds:
        found.append(
            "Candidates were sampled in several ways; subsets are drawn from all of a prompt's candidates together."
        )
    if tally.combiners["safe_first"]:
        found.append(
            "The run ranks safe answers first, so the best of more candidates may have a lower R_c, though a safer answer."
        )
    return found


def _kind_rows(findings: Findings) -> list[tuple[int, list[tuple[Interval | None, bool]]]]:
    """For each N a cell for every kind of arm, and whether it is the best of them."""
    columns = [{point.size: point.best for point in curve} for curve in findings.kinds.values()]
    rows = []
    for size in sorted({size for column in columns for size in column}):
        cells = [column.get(size) for column in columns]
        best = max(cell.mean for cell in cells if cell is not None)
        rows.append((size, [(cell, cell is not None and cell.mean == best) for cell in cells]))
    return rows


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    """Nested settings as rows of a dotted name and a value."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        else:
            rows.append((name, value if isinstance(value, str) else orjson.dumps(value).decode()))
    return rows


def _models(manifest: Manifest) -> list[tuple[str, str]]:
    """(role, id) of each model that the manifest names."""
    models = manifest.get("models")
    named = models.items() if isinstance(models, dict) else ()
    return [(role, str(model.get("id"))) for role, model in named if isinstance(model, dict)]


def _source(manifest: Manifest) -> str | None:
    """The name of the input."""
    source = manifest.get("input")
    return str(source.get("name")) if isinstance(source, dict) else None


def _categories(groups: Mapping[str | None, Group]) -> list[tuple[str, Group]]:
    """Categories, the largest first and those without one last; empty if there is none."""
    if not any(name is not None for name in groups):
        return []
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, -item[1].prompts, item[0] or ""))
    return [("no category" if name is None else name, group) for name, group in ordered]
