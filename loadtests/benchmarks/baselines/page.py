"""The benchmark's generated page: tables for the terminal, and Markdown, JSON and a bar plot for the documentation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from winnow.loadtests.benchmarks.baselines.agreement import Agreement
from winnow.loadtests.benchmarks.baselines.figures import GOALS, Figures, Goal, Run, Scene, p50_ms, throughput
from winnow.loadtests.benchmarks.baselines.fleet import NAMES
from winnow.loadtests.benchmarks.baselines.prompts import MAX_TOKENS
from winnow.loadtests.benchmarks.pages import panels, table, with_interval
from winnow.models.reporting.plots import BLUE, INK, ORANGE
from winnow.models.statistics import Interval

LABELS: Mapping[str, str] = {
    "winnow": "Winnow: `winnow serve`, asked over its chat endpoint; scores each candidate while its siblings decode.",
    "vllm": "(a) Plain vLLM: its OpenAI server with `n=K`, nothing scored, the first candidate returned. The lower "
    "bound.",
    "vllm+classify": "(b) The same server, then both reward models on servers of their own, over `/classify`: one "
    "request with all K texts to each, both at once, combined by the client. A competent user's own best-of-N.",
    "untuned": "(b) again, on servers with vLLM's default threads, processes and prefills, as most people would "
    "start them.",
    "one-by-one": "(c) K requests to (a)'s server one after another, then scored as in (b).",
    "its_hub": "(d) its_hub's `BestOfN`, with a language model and a reward model that ask (b)'s servers. It samples "
    "concurrently.",
    "optillm": "(d) optillm's proxy with `bon` before (a)'s server: `n=K`, then the policy itself rates each answer, "
    "one after another. It passes on neither seed nor `logit_bias`: its answers have natural lengths, which is less "
    "work.",
    "transformers": "(e) `generate(num_return_sequences=K)` and padded reward-model batches, one request at a time, "
    "in one process.",
}
NOTES = """\
- Prompts are held-out ones of the demo world, at temperature 1, the same for every system. The order
  of systems rotates from round to round.
- Baselines get the prompt as token ids, which spares their server a template and a tokenizer: that
  favours them.
- vLLM's servers have the settings of Winnow's engines, as far as flags and environment variables go
  (`loadtests/benchmarks/baselines/commands.py`).
- Winnow, (c) and its_hub derive a candidate's seed in the same way; vLLM's `n=K` and transformers have
  derivations of their own.
- (a) scores nothing: the `p50 / (b)` of its row is the part of (b) that remains if scoring costs
  nothing. Winnow's CPU engines compute norms in one pass and choose threads by a step's work
  (`models/engines/vllm_cpu_worker.py`), which vLLM's do not; only for that reason can Winnow be faster
  than (a).
- The load generator runs on the same cores. Intervals are the range of the rounds; p90 and p99 are over
  all requests.
"""
_HEADINGS = (
    "system",
    "p50, ms",
    "p90",
    "p99",
    "requests/s",
    "p50 / (a)",
    "p50 / (b)",
    "requests/s / (a)",
    "requests/s / (b)",
    "failed",
)
_GOAL_HEADINGS = ("goal", "bound", "median (least to greatest)", "")
_MEASURES = (p50_ms, throughput, p50_ms)
_AXES = ("p50 latency, ms (less is better)", "requests/s (more is better)", "p50 latency, ms (less is better)")
_IS_MET = {True: "met", False: "missed", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Measured:
    """The outcome of a benchmark. `is_forced`: EOS was banned, so that every answer had the same length."""

    figures: Figures
    scenes: Sequence[Scene]
    missing: Mapping[str, str]
    agreement: Agreement | None
    is_forced: bool


def _rows(measured: Measured, scene: Scene) -> Iterator[tuple[str, ...]]:
    figures = measured.figures
    for name in NAMES:
        if reason := measured.missing.get(name):
            yield (name, f"does not run: {reason.splitlines()[0]}", *[""] * (len(_HEADINGS) - 2))
        if not (runs := figures.of(scene.name, name)):
            continue
        pooled = (f"{figures.latency(scene.name, name, percent) * 1000:,.0f}" for percent in (90, 99))
        compared = (
            with_interval(figures.compared(scene.name, name, base, measure), _two_digits)
            for measure in (p50_ms, throughput)
            for base in ("vllm", "vllm+classify")
        )
        yield (
            name,
            with_interval(figures.interval(scene.name, name, p50_ms), "{:,.0f}".format),
            *pooled,
            with_interval(figures.interval(scene.name, name, throughput), _two_digits),
            *compared,
            str(sum(run.failed for run in runs)),
        )


def _two_digits(value: float) -> str:
    return f"{value:,.2f}"


def _goal_rows(measured: Measured) -> Iterator[tuple[str, str, str, str]]:
    titles = {scene.name: scene.title for scene in measured.scenes}
    for goal in GOALS:
        bound = f"{'≤' if goal.is_upper else '≥'} {goal.bound:g}"
        figure = with_interval(goal.figure(measured.figures), _two_digits)
        yield (
            f"{titles.get(goal.scene, goal.scene)}: {goal.text}",
            bound,
            figure,
            _IS_MET[goal.is_met(measured.figures)],
        )


def show(measured: Measured, console: Console) -> None:
    """Print the tables."""
    for scene in measured.scenes:
        _print(console, scene.title, _HEADINGS, list(_rows(measured, scene)))
    _print(console, "goals", _GOAL_HEADINGS, list(_goal_rows(measured)))


def _print(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    printed = Table(*headings, title=title)
    for row in rows:
        printed.add_row(*row)
    console.print(printed)


def write(measured: Measured, facts: Mapping[str, str], out: Path) -> list[Path]:
    """Write the page, its figures and its plot; return their paths."""
    figures, plot = out.with_suffix(".json"), out.with_suffix(".png")
    out.write_text(markdown(measured, facts, plot.name), encoding="utf-8")
    figures.write_text(json.dumps(as_json(measured, facts), indent=1) + "\n", encoding="utf-8")
    draw(measured, plot)
    return [out, figures, plot]


def markdown(measured: Measured, facts: Mapping[str, str], plot: str) -> str:
    """Return the page."""
    lengths = (
        f"{MAX_TOKENS} tokens an answer (EOS is banned)"
        if measured.is_forced
        else f"natural lengths, at most {MAX_TOKENS} tokens"
    )
    rounds = max((run.round for run in measured.figures.runs), default=0)
    parts = [
        "# Benchmarks",
        f"Winnow beside other implementations of best-of-K, on the demo models: {lengths}, {rounds} rounds; written by "
        "`make bench`.",
        f"![latency and throughput of each system]({plot})",
        "## Goals",
        table(_GOAL_HEADINGS, _goal_rows(measured)),
    ]
    for scene in measured.scenes:
        count = f"{scene.requests} requests a round, {scene.slow_requests} of the slow systems"
        parts += [f"## {scene.title}", f"A closed loop: {count}.", table(_HEADINGS, _rows(measured, scene))]
    parts += ["## Systems", "\n".join(f"- **{name}** {text}" for name, text in LABELS.items())]
    parts += ["## Do the systems return the same?", *_agreement(measured)]
    parts += ["## Notes", NOTES.strip(), "## Machine", table(("", ""), facts.items())]
    parts += [f"{name} does not run:\n\n```\n{reason}\n```" for name, reason in measured.missing.items()]
    return "\n\n".join(parts) + "\n"


def _agreement(measured: Measured) -> Iterator[str]:
    if found := measured.agreement:
        yield (
            f"(b)'s scorer on Winnow's candidates: over {found.candidates} answers to {found.prompts} prompts the "
            f"scores differ by at most {found.largest_difference:.1g}, and it chooses the same winner for "
            f"{found.same_winner} of {found.prompts} prompts."
        )
    for name in ("one-by-one", "its_hub"):
        asked, same = measured.figures.same_answers("winnow", name)
        if asked:
            yield f"Winnow and {name}, which use the same seeds, returned the same text to {same} of {asked} requests."
    tokens = {name: _tokens_per_request(measured.figures, name) for name in NAMES}
    known = "; ".join(f"{name} {count:,.0f}" for name, count in tokens.items() if count)
    yield f"Tokens sampled a request, over all scenes: {known}."


def _tokens_per_request(figures: Figures, name: str) -> float:
    runs = [run for run in figures.runs if run.system == name]
    return sum(run.tokens for run in runs) / max(1, sum(len(run.latencies) for run in runs))


def as_json(measured: Measured, facts: Mapping[str, str]) -> dict[str, object]:
    """Return every figure, with those of each round; null where nothing was measured."""
    return {
        "machine": dict(facts),
        "scenes": [asdict(scene) for scene in measured.scenes],
        "agreement": measured.agreement and asdict(measured.agreement),
        "missing": dict(measured.missing),
        "goals": [_goal_as_json(goal, measured.figures) for goal in GOALS],
        "runs": [_run_as_json(run) for run in measured.figures.runs],
    }


def _goal_as_json(goal: Goal, figures: Figures) -> dict[str, object]:
    figure = goal.figure(figures)
    numbers = (None, None, None) if figure is None else (figure.value, figure.low, figure.high)
    return {
        "goal": f"{goal.scene}: {goal.text}",
        "bound": goal.bound,
        **dict(zip(("median", "low", "high"), numbers, strict=True)),
        "met": goal.is_met(figures),
    }


def _run_as_json(run: Run) -> dict[str, object]:
    return {
        **{key: value for key, value in asdict(run).items() if key != "answers"},
        "latencies": [round(value, 5) for value in run.latencies],
        "p50_ms": None if math.isnan(run.p50) else run.p50 * 1000,
        "requests_per_second": None if math.isnan(run.requests_per_second) else run.requests_per_second,
    }


def draw(measured: Measured, path: Path) -> None:
    """Write the bar plot: median latency of one client and throughput of the crowd, with the range of the rounds."""
    shown = list(zip(measured.scenes, _MEASURES, _AXES, strict=False))
    with panels(path, len(shown), size=(11.0, 3.6)) as columns:
        for axes, (scene, measure, label) in zip(columns, shown, strict=True):
            found: dict[str, Interval] = {
                name: interval
                for name in NAMES
                if (interval := measured.figures.interval(scene.name, name, measure)) is not None
            }
            medians = [item.value for item in found.values()]
            spread = [[i.value - i.low for i in found.values()], [i.high - i.value for i in found.values()]]
            colours = [ORANGE if name == "winnow" else BLUE for name in found]
            axes.barh(list(found), medians, xerr=spread, color=colours, ecolor=INK, capsize=2)
            axes.invert_yaxis()
            axes.set_title(scene.title)
            axes.set_xlabel(label)
