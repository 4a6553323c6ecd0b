"""The result of a run, and the files it is written to: `result.json` and `requests.jsonl`.

`result.json`, schema `winnow.loadtest/1`; a later version of the schema may add keys, another number means another shape:

    schema, started (UTC), interrupted
    scenario      its keys, but for prompts and system message: of these there are `count` and `sha256`
    machine       the tester's: cpu, cores, platform, python, winnow
    systems       name, and what else is known: url, model, dialect, stream
    points        one for each setting of the sweep:
      candidates, rate, concurrency, label
      systems     by name: `estimates` (quantity → median, low, high, repeats, unit) and `repeats` (the measures of each)
      against     for every system but the first: `system`, `ratios` (quantity → median, low, high, repeats; the first system's value
                  divided by this one's) and `agreement` (both: requests that both answered; same: with the same text)

Rates are a second, spans in milliseconds (names end in _ms), shares in (0, 1), but percent where a name says so. What the quantities
mean stands in `winnow.loadtests.measures`. `requests.jsonl` has a line for every request, with no text in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.estimates import QUANTITIES, Agreement, Estimate, agreement, estimates, ratios
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.machine import machine
from winnow.loadtests.measures import Measures
from winnow.loadtests.runner import Repeat
from winnow.loadtests.scenario import Point, Scenario
from winnow.loadtests.workload import dialogs

SCHEMA = "winnow.loadtest/1"
SPANS = ("first_byte", "whole", "score_tail", "lag")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first system against another, at one point."""

    system: str
    ratios: Mapping[str, Estimate]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Result:
    """A run: what was run (`systems` are facts, with a `name` each), and every repeat. `started` is UTC, as ISO 8601."""

    scenario: Scenario
    systems: Sequence[Mapping[str, Any]]
    repeats: Sequence[Repeat]
    started: str
    is_interrupted: bool = False

    @property
    def names(self) -> list[str]:
        """The systems, in the order given."""
        return [str(system["name"]) for system in self.systems]

    @property
    def points(self) -> list[Point]:
        """The points that have repeats, in their order."""
        return list(dict.fromkeys(repeat.point for repeat in self.repeats))

    def of(self, point: Point, system: str) -> list[Repeat]:
        """The repeats of a point on a system: the whole ones, or what there is if none is whole."""
        found = [repeat for repeat in self.repeats if repeat.point == point and repeat.system == system]
        return [repeat for repeat in found if repeat.is_whole] or found

    def estimates(self, point: Point, system: str) -> Mapping[str, Estimate]:
        """Every quantity that is known, over the repeats."""
        return estimates([repeat.measures for repeat in self.of(point, system)])

    def comparisons(self, point: Point) -> list[Comparison]:
        """The first system against each of the others; empty if there is but one."""
        first, *others = self.names
        return [self._compared(self.of(point, first), self.of(point, other), other) for other in others]

    @staticmethod
    def _compared(ours: Sequence[Repeat], theirs: Sequence[Repeat], name: str) -> Comparison:
        same = sum((agreement(a.samples, b.samples) for a, b in zip(ours, theirs, strict=False)), start=Agreement(0, 0))
        return Comparison(name, ratios([a.measures for a in ours], [b.measures for b in theirs]), same)


def document(result: Result) -> dict[str, Any]:
    """The content of `result.json`."""
    return {
        "schema": SCHEMA,
        "started": result.started,
        "interrupted": result.is_interrupted,
        "scenario": _scenario(result.scenario),
        "machine": machine(),
        "systems": [dict(system) for system in result.systems],
        "points": [_point(result, point) for point in result.points],
    }


def _scenario(scenario: Scenario) -> dict[str, Any]:
    found = dialogs(scenario)
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    keys = scenario.model_dump(mode="json", exclude={"prompts", "prompts_file", "system"}, exclude_none=True)
    return {**keys, "prompts": {"count": len(found), "sha256": digest}}


def _point(result: Result, point: Point) -> dict[str, Any]:
    units = {quantity.name: quantity.unit for quantity in QUANTITIES}
    return {
        **asdict(point),
        "label": point.label,
        "systems": {
            name: {
                "estimates": {
                    key: {**asdict(value), "unit": units[key]} for key, value in result.estimates(point, name).items()
                },
                "repeats": [_repeat(repeat) for repeat in result.of(point, name)],
            }
            for name in result.names
        },
        "against": [asdict(comparison) for comparison in result.comparisons(point)],
    }


def _repeat(repeat: Repeat) -> dict[str, Any]:
    return {"repeat": repeat.number, "whole": repeat.is_whole, **_measures(repeat.measures)}


def _measures(measures: Measures) -> dict[str, Any]:
    """The measures, with their spans in milliseconds."""
    found = asdict(measures)
    for name in SPANS:
        spans = found.pop(name)
        found[f"{name}_ms"] = spans and {
            "max" if key == "largest" else key: value if key == "count" else _ms(value) for key, value in spans.items()
        }
    return found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def rows(result: Result) -> Iterator[dict[str, Any]]:
    """The lines of `requests.jsonl`."""
    for repeat in result.repeats:
        where = {"point": repeat.point.label, "system": repeat.system, "repeat": repeat.number}
        for sample in repeat.samples:
            yield {**where, **_row(sample, repeat.start)}


def _row(sample: Sample, start: float) -> dict[str, Any]:
    reply = sample.reply
    return {
        "number": sample.number,
        "due_s": round(sample.intended - start, 6),
        "lag_ms": _ms(sample.lag),
        "kind": reply.kind,
        "first_byte_ms": _ms(sample.first_byte),
        "whole_ms": _ms(sample.latency),
        "score_tail_ms": _ms(reply.score_tail),
        "candidates": reply.candidates,
        "sampled_tokens": reply.sampled_tokens,
        "winner_tokens": reply.winner_tokens,
        "text": reply.text,
        "error": reply.error,
        "details": dict(reply.details),
    }


def write(result: Result, folder: Path) -> None:
    """Write both files into `folder`, which is made if need be; older ones are replaced.

    Raises:
        LoadTestError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document(result), indent=1, ensure_ascii=False, default=str)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8", errors="replace")
        with (folder / "requests.jsonl").open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows(result))
    except OSError as error:
        raise LoadTestError(f"{folder} cannot be written: {error.strerror}") from None
