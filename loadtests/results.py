"""The result of a run, and its files `result.json` and `requests.jsonl`.

`result.json` has the schema `winnow.loadtest/1`. Keys may be added; another number means an incompatible change:

    schema, started (UTC), interrupted (the run ended early: by a signal, or because a target was lost)
    scenario      its keys; of prompts and system message only `count` and `sha256`
    machine       of the load tester: cpu, cores, platform, python, winnow
    systems       name of each target, and what else is known: url, model, dialect, stream
    points        one for each setting of the sweep:
      candidates, rate, concurrency, label
      systems     by name: `estimates` (quantity → median, low, high, repeats, unit) and `repeats` (measures of each)
      against     for every target but the first: `system`; `ratios` (quantity → median, low, high, repeats), the first
                  target's value divided by this one's; `agreement` (both: requests that both answered; same: those
                  with the same text)

Rates are per second, durations in milliseconds (names end in _ms), shares in (0, 1) unless a name says percent.
`winnow.loadtests.measures` defines the quantities. `requests.jsonl` has a line for every request, with no text in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winnow.loadtests.estimates import QUANTITIES, Agreement, agreement, estimates, ratios
from winnow.loadtests.load_generator import Sample
from winnow.loadtests.machine import machine
from winnow.loadtests.measures import Measures
from winnow.loadtests.output import write_whole
from winnow.loadtests.runner import Repeat
from winnow.loadtests.scenario import Point, Scenario
from winnow.loadtests.workload import read_dialogs
from winnow.models.statistics import Interval

SCHEMA = "winnow.loadtest/1"
DURATIONS = ("first_byte", "whole", "score_tail", "lag")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first target against another, at one point."""

    target: str
    ratios: Mapping[str, Interval]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Result:
    """A run: the scenario, facts about each target (including `name`), and all repeats. `started` is UTC, ISO 8601."""

    scenario: Scenario
    targets: Sequence[Mapping[str, Any]]
    repeats: Sequence[Repeat]
    started: str
    is_interrupted: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the targets, in the order given."""
        return [str(target["name"]) for target in self.targets]

    @property
    def points(self) -> list[Point]:
        """Points that have repeats, in their order."""
        return list(dict.fromkeys(repeat.point for repeat in self.repeats))

    def of(self, point: Point, target: str) -> list[Repeat]:
        """Return the whole repeats of a point on a target, or the interrupted one if none is whole."""
        found = [repeat for repeat in self.repeats if repeat.point == point and repeat.target == target]
        return [repeat for repeat in found if repeat.is_whole] or found

    def estimates(self, point: Point, target: str) -> Mapping[str, Interval]:
        """Return the estimate of every known quantity over the repeats."""
        return estimates([repeat.measures for repeat in self.of(point, target)])

    def comparisons(self, point: Point) -> list[Comparison]:
        """Compare the first target with each of the others; empty if there is only one."""
        first, *others = self.names
        return [self._compare(self.of(point, first), self.of(point, other), other) for other in others]

    @staticmethod
    def _compare(ours: Sequence[Repeat], theirs: Sequence[Repeat], name: str) -> Comparison:
        same = sum((agreement(a.samples, b.samples) for a, b in zip(ours, theirs, strict=False)), start=Agreement(0, 0))
        return Comparison(name, ratios([a.measures for a in ours], [b.measures for b in theirs]), same)


def document(result: Result) -> dict[str, Any]:
    """Return the content of `result.json`."""
    return {
        "schema": SCHEMA,
        "started": result.started,
        "interrupted": result.is_interrupted,
        "scenario": _scenario(result.scenario),
        "machine": machine(),
        "systems": [dict(target) for target in result.targets],
        "points": [_point(result, point) for point in result.points],
    }


def _scenario(scenario: Scenario) -> dict[str, Any]:
    dialogs = read_dialogs(scenario)
    digest = hashlib.sha256(json.dumps(dialogs).encode()).hexdigest()
    keys = scenario.model_dump(mode="json", exclude={"prompts", "prompts_file", "system"}, exclude_none=True)
    return {**keys, "prompts": {"count": len(dialogs), "sha256": digest}}


def _point(result: Result, point: Point) -> dict[str, Any]:
    return {
        **asdict(point),
        "label": point.label,
        "systems": {
            name: {
                "estimates": _estimates(result.estimates(point, name)),
                "repeats": [_repeat(repeat) for repeat in result.of(point, name)],
            }
            for name in result.names
        },
        "against": [
            {
                "system": comparison.target,
                "ratios": {key: _interval(ratio) for key, ratio in comparison.ratios.items()},
                "agreement": asdict(comparison.agreement),
            }
            for comparison in result.comparisons(point)
        ],
    }


def _estimates(found: Mapping[str, Interval]) -> dict[str, Any]:
    units = {quantity.name: quantity.unit for quantity in QUANTITIES}
    return {key: {**_interval(interval), "unit": units[key]} for key, interval in found.items()}


def _interval(interval: Interval) -> dict[str, float]:
    return {"median": interval.value, "low": interval.low, "high": interval.high, "repeats": interval.count}


def _repeat(repeat: Repeat) -> dict[str, Any]:
    return {"repeat": repeat.number, "whole": repeat.is_whole, **_measures(repeat.measures)}


def _measures(measures: Measures) -> dict[str, Any]:
    """Return the measures, with durations in milliseconds."""
    found = asdict(measures)
    for name in DURATIONS:
        quantiles = found.pop(name)
        found[f"{name}_ms"] = quantiles and {
            "max" if key == "largest" else key: value if key == "count" else _ms(value)
            for key, value in quantiles.items()
        }
    return found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def rows(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the lines of `requests.jsonl`."""
    for repeat in result.repeats:
        where = {"point": repeat.point.label, "system": repeat.target, "repeat": repeat.number}
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
    """Write both files into `folder`, creating it if needed and replacing older files; `result.json` first.

    Raises:
        LoadTestError: one cannot be written.
    """
    write_whole(folder / "result.json", [_line(document(result), indent=1)])
    write_whole(folder / "requests.jsonl", map(_line, rows(result)))


def _line(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return JSON in UTF-8 with a line end; what has no place in UTF-8 becomes `?`."""
    return f"{json.dumps(content, indent=indent, ensure_ascii=False, default=str)}\n".encode("utf-8", "replace")
