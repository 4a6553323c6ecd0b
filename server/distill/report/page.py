"""The page of a report: one HTML file without scripts that needs no other file and no network.

Text from a run is made visible and escaped by the template. The page does not depend on when or where it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from winnow.models.gains import GainTable
from winnow.models.reporting import numbers
from winnow.models.reporting.numbers import count, number, percent, percent_span, share, signed, span
from winnow.models.reporting.pages import environment, flattened
from winnow.models.reporting.plots import Plot
from winnow.models.statistics import Interval, kl_bound
from winnow.models.types import SAFETY_THRESHOLD
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.report.answers import ArmKind
from winnow.server.distill.report.counts import Group
from winnow.server.distill.report.findings import FEW_PROMPTS, LONGER, STRONG_RHO, Findings
from winnow.server.distill.report.plots import BRANCHES, kind_label
from winnow.server.distill.report.waves import ORDERS, SIZE

TEMPLATE = "report.html.jinja"
FILTERS = ("number", "signed", "count", "percent", "span", "percent_span")
WORTH_BESTS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
WORTH_SEEN = (2, 4, 8, 12)
WORTH_WAVE = 4
"""The states that the table of gains is shown for."""
STOPPED_BY = {
    "reward": "the reward was reached",
    "gain": "more was not worth it, or gained other prompts more",
    "candidates": "all candidates were sampled",
    "load": "the load",
    "deadline": "the deadline",
}
REASONS = {"gain": "large gain", "unsafe": "unsafe winner", "low": "low winner"}


def render(
    findings: Findings, manifest: Manifest, plots: Sequence[Plot], min_gain: float, table: GainTable | None = None
) -> bytes:
    """Return the page in UTF-8. The template places `plots` by their names and leaves out those that are missing.

    `table` is what the run tells of the gain of further candidates.
    """
    templates = environment(Path(__file__).parent)
    templates.filters |= {name: getattr(numbers, name) for name in FILTERS}
    page = templates.get_template(TEMPLATE).render(
        findings=findings,
        counts=findings.counts,
        plots={plot.name: plot for plot in plots},
        manifest=[
            (name, value if isinstance(value, str) else orjson.dumps(value).decode())
            for name, value in flattened(manifest)
        ],
        models=_models(manifest),
        source=_source(manifest),
        notes=notes(findings),
        kind_rows=_kind_rows(findings),
        hidden_kinds=len(findings.counts.kinds()) - len(findings.kinds) if findings.kinds else 0,
        enough=enough_sentence(findings, min_gain),
        warnings=length_warnings(findings),
        stop_lines=stop_lines(findings),
        stopped_by=STOPPED_BY,
        wave_size=SIZE.start,
        wave_orders=ORDERS,
        worth=_worth(table) if table else [],
        worth_seen=WORTH_SEEN,
        worth_wave=WORTH_WAVE,
        categories=_categories(findings.counts.categories),
        kl_bound=kl_bound,
        share=share,
        kind_label=kind_label,
        kind_of=ArmKind.of,
        reasons=REASONS,
        branches={branch: label for branch, (label, _) in BRANCHES.items()},
        rules={"threshold": SAFETY_THRESHOLD, "few": FEW_PROMPTS, "rho": STRONG_RHO, "longer": LONGER},
    )
    return page.encode()


def enough_sentence(findings: Findings, min_gain: float) -> str:
    """Return the N beyond which doubling gains less than `min_gain` of R_c, in a sentence, with its uncertainty."""
    doublings, largest = findings.doublings, findings.candidates
    if not doublings:
        return f"With K = {largest} there is no doubling to measure."
    size = findings.enough(min_gain)
    last = doublings[-1]
    if size is None:
        sentence = (
            f"Not reached within K = {largest}: going from N = {last.size} to {2 * last.size} still gains "
            f"{signed(last.gain.value)} ({span(last.gain)}), at least {min_gain:g}."
        )
        unsure = last.gain.low < min_gain
    else:
        following = [doubling for doubling in doublings if doubling.size >= size]
        gain = following[0].gain
        sentence = (
            f"Beyond N = {size} the next doubling gains less than {min_gain:g} of R_c: going to {2 * size} gains "
            f"{signed(gain.value)} ({span(gain)})."
        )
        unsure = any(doubling.gain.high >= min_gain for doubling in following)
    return sentence + (" The interval reaches across that limit, so more prompts may move this N." if unsure else "")


def stop_lines(findings: Findings) -> list[str]:
    """Return what the simulated stop that saves most would have saved, in a sentence; empty if none saves anything."""
    stops = findings.waves.stops if findings.waves else ()
    saving = [(1 - stop.tokens / stop.tokens_alike, stop) for stop in stops if stop.tokens_alike]
    saved, best = max(saving, key=lambda item: item[0], default=(0.0, None))
    if best is None or saved <= 0:
        return []
    return [
        f"Stopping at R_c ≥ {best.at:g} would have taken {percent(saved)} fewer tokens than a fixed K of the same R_c, "
        f"{number(best.reward.value)}."
    ]


def length_warnings(findings: Findings) -> list[str]:
    """Return the warnings of length bias, by the rules of `Length`; empty if there is none."""
    length, found = findings.length, []
    if length is None:
        return []
    if length.follows_length and length.rho is not None:
        longer = "longer" if length.rho.value > 0 else "shorter"
        found.append(
            f"Within a prompt, {longer} answers get higher rewards: rank correlation {signed(length.rho.value, 2)} "
            f"({span(length.rho, 2)}). A policy trained on the winners may learn to be {longer}, not better."
        )
    if length.winners_are_longer:
        found.append(
            f"Winners are {percent(length.longer.value)} longer than the mean answer to their prompt "
            f"({percent_span(length.longer)})."
        )
    return found


def notes(findings: Findings) -> list[str]:
    """Return the notes that a reader needs to interpret the curves."""
    counts, found = findings.counts, []
    if findings.is_partial:
        found.append(
            f"Curves and intervals come from a random sample of {count(findings.kept)} of the {count(counts.prompts)} "
            "prompts. Counts, shares and distributions cover all prompts."
        )
    if findings.kept < FEW_PROMPTS:
        found.append(f"With fewer than {FEW_PROMPTS} prompts the intervals are too narrow: conclude nothing from them.")
    if counts.failed:
        found.append(
            "Some candidates failed. A prompt counts only for the N that it has scored candidates for, so the last "
            "points rest on fewer prompts (hollow if on fewer than half), and are compared over those prompts alone."
        )
    if findings.waves and findings.waves.drawn.prompts:
        found.append(
            "Candidates were sampled in waves, the later ones for prompts that needed them. So curves against N are of "
            "the first waves alone."
        )
    if findings.kinds:
        found.append(
            "Candidates were sampled in several ways. Subsets are drawn from all candidates of a prompt together."
        )
    if counts.combiners["safe_first"]:
        found.append(
            "The run ranks safe answers first, so the best of more candidates may be safer but have a lower R_c."
        )
    return found


def _worth(table: GainTable) -> list[tuple[float, list[float]]]:
    """Return for each best R_c so far what each of a wave's candidates gains, by the number seen before."""
    return [
        (best, [table.expected(best, seen, WORTH_WAVE, is_safety=False) / WORTH_WAVE for seen in WORTH_SEEN])
        for best in WORTH_BESTS
    ]


def _kind_rows(findings: Findings) -> list[tuple[int, list[tuple[Interval | None, bool]]]]:
    """Return for each N a cell per kind of arm, and whether it is the best of them."""
    columns = [{point.size: point.best for point in curve} for curve in findings.kinds.values()]
    rows = []
    for size in sorted({size for column in columns for size in column}):
        cells = [column.get(size) for column in columns]
        best = max(cell.value for cell in cells if cell is not None)
        rows.append((size, [(cell, cell is not None and cell.value == best) for cell in cells]))
    return rows


def _models(manifest: Manifest) -> list[tuple[str, str]]:
    """Return (role, id) of each model that the manifest names."""
    models = manifest.get("models")
    named = models.items() if isinstance(models, dict) else ()
    return [(role, str(model.get("id"))) for role, model in named if isinstance(model, dict)]


def _source(manifest: Manifest) -> str | None:
    """Return the name of the input."""
    source = manifest.get("input")
    return str(source.get("name")) if isinstance(source, dict) else None


def _categories(groups: Mapping[str | None, Group]) -> list[tuple[str, Group]]:
    """Return the categories, largest first and prompts without one last; empty if there are none."""
    if not any(name is not None for name in groups):
        return []
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, -item[1].prompts, item[0] or ""))
    return [("no category" if name is None else name, group) for name, group in ordered]
