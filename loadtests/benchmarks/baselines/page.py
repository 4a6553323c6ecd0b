"""The benchmark's page: a table for the terminal, and Markdown, JSON and a bar plot for the documentation. All of it is generated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from winnow.loadtests.benchmarks.baselines.agreement import Agreement
from winnow.loadtests.benchmarks.baselines.figures import GOALS, Figures, Interval, Scene, p50_ms, throughput
from winnow.loadtests.benchmarks.baselines.fleet import NAMES
from winnow.loadtests.benchmarks.baselines.prompts import MAX_TOKENS

LABELS: Mapping[str, str] = {
    "winnow": "Winnow: `winnow serve`, asked over its chat endpoint; scores each candidate while its siblings decode.",
    "vllm": "(a) Plain vLLM: its OpenAI server with `n=K`, nothing scored, the first candidate returned. The floor.",
    "vllm+classify": "(b) The same server, then both reward models on servers of their own, over `/classify`: one request with all K texts "
    "to each, both at once, combined by the client. What a competent user builds.",
    "untuned": "(b) again, on servers with the threads, processes and prefills that vLLM has by default: how most people would start them.",
    "one-by-one": "(c) K requests to (a)'s server one after another, then scored as in (b).",
    "its_hub": "(d) its_hub's `BestOfN`, with a language model and a reward model that ask (b)'s servers. It samples concurrently.",
    "optillm": "(d) optillm's proxy with `bon` before (a)'s server: `n=K`, then the policy itself rates each answer, one after another. It "
    "hands on neither seed nor `logit_bias`: its answers have natural lengths, which is less work.",
    "transformers": "(e) `generate(num_return_sequences=K)` and padded reward-model batches, one request at a time, in one process.",
}
NOTES = """\
- Prompts are the demo world's held-out ones, temperature 1, the same for every system; the order of systems rotates from round to round.
- Baselines get the prompt as token ids, which spares their server a template and a tokenizer: that favours them.
- vLLM's servers have the settings of Winnow's engines, as far as flags and environment variables go (`loadtests/peers/commands.py`).
- Winnow, (c) and its_hub derive a candidate's seed alike; vLLM's `n=K` and transformers have derivations of their own.
- (a) scores nothing: the `p50 / (b)` of its row is what is left of (b) when scoring costs nothing. Winnow's CPU engines compute norms in
  one pass and take threads by a step's work (`models/cpu_worker.py`), which vLLM's do not; only so can Winnow be faster than (a).
- The load generator runs on the same cores. Intervals are the least and the greatest of the rounds; p90 and p99 are over all requests.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a benchmark has found. `is_forced`: EOS was banned, so that every answer had the same length."""

    figures: Figures
    scenes: Sequence[Scene]
    missing: Mapping[str, str]
    agreement: Agreement | None
    is_forced: bool


_HEADS = (
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


def _rows(measured: Measured, scene: Scene) -> Iterator[tuple[str, ...]]:
    figures = measured.figures
    for name in NAMES:
        if reason := measured.missing.get(name):
            yield (name, f"does not run: {reason.splitlines()[0]}", *[""] * (len(_HEADS) - 2))
        if not (runs := figures.of(scene.name, name)):
            continue
        pooled = (f"{figures.latency(scene.name, name, share) * 1000:,.0f}" for share in (0.9, 0.99))
        compared = (
            figures.compared(scene.name, name, base, measure).text(2)
            for measure in (p50_ms, throughput)
            for base in ("vllm", "vllm+classify")
        )
        yield (
            name,
            figures.interval(scene.name, name, p50_ms).text(0),
            *pooled,
            figures.interval(scene.name, name, throughput).text(2),
            *compared,
            str(sum(run.failed for run in runs)),
        )


def _goal_rows(measured: Measured) -> Iterator[tuple[str, str, str, str]]:
    titles = {scene.name: scene.title for scene in measured.scenes}
    words = {True: "met", False: "missed", None: "not measured"}
    for goal in GOALS:
        bound = f"{'≤' if goal.is_upper else '≥'} {goal.bound:g}"
        figure = goal.figure(measured.figures).text(2)
        yield f"{titles.get(goal.scene, goal.scene)}: {goal.text}", bound, figure, words[goal.is_met(measured.figures)]


def show(measured: Measured, console: Console) -> None:
    """Print the tables."""
    for scene in measured.scenes:
        _print(console, scene.title, _HEADS, list(_rows(measured, scene)))
    _print(console, "goals", ("goal", "bound", "median (least to greatest)", ""), list(_goal_rows(measured)))


def _print(console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def write(measured: Measured, facts: Mapping[str, str], out: Path) -> list[Path]:
    """Write the page, its figures and its plot; return their paths."""
    figures, plot = out.with_suffix(".json"), out.with_suffix(".png")
    out.write_text(markdown(measured, facts, plot.name), encoding="utf-8")
    figures.write_text(json.dumps(as_json(measured, facts), indent=1) + "\n", encoding="utf-8")
    draw(measured, plot)
    return [out, figures, plot]


def markdown(measured: Measured, facts: Mapping[str, str], plot: str) -> str:
    """The page."""
    lengths = (
        f"{MAX_TOKENS} tokens an answer (EOS is banned)"
        if measured.is_forced
        else f"natural lengths, at most {MAX_TOKENS} tokens"
    )
    rounds = max((run.round for run in measured.figures.runs), default=0)
    parts = [
        "# Benchmarks",
        f"Winnow beside the other ways to get the best of K, on the demo models: {lengths}, {rounds} rounds; written by `make bench`.",
        f"![latency and throughput of each system]({plot})",
        "## Goals",
        _table(("goal", "bound", "median (least to greatest)", ""), _goal_rows(measured)),
    ]
    for scene in measured.scenes:
        count = f"{scene.requests} requests a round, {scene.slow_requests} of the slow systems"
        parts += [f"## {scene.title}", f"A closed loop: {count}.", _table(_HEADS, _rows(measured, scene))]
    parts += ["## Systems", "\n".join(f"- **{name}** {text}" for name, text in LABELS.items())]
    parts += ["## Do they do the same?", *_agreement(measured)]
    parts += ["## Notes", NOTES.strip(), "## Machine", _table(("", ""), facts.items())]
    missing = "\n\n".join(f"{name} does not run:\n\n```\n{reason}\n```" for name, reason in measured.missing.items())
    return "\n\n".join([*parts, missing] if missing else parts) + "\n"


def _agreement(measured: Measured) -> Iterator[str]:
    if found := measured.agreement:
        yield (
            f"(b)'s scorer on Winnow's candidates: over {found.candidates} answers to {found.prompts} prompts the scores differ by at most "
            f"{found.largest_difference:.1g}, and it chooses the same winner for {found.same_winner} of {found.prompts} prompts."
        )
    for name in ("one-by-one", "its_hub"):
        asked, same = measured.figures.same_answers("winnow", name)
        if asked:
            yield f"Winnow and {name}, which use the same seeds, returned the same text to {same} of {asked} requests."
    counts = {name: _tokens(measured.figures, name) for name in NAMES}
    yield (
        "Tokens sampled a request, over all scenes: " + "; ".join(f"{n} {c:,.0f}" for n, c in counts.items() if c) + "."
    )


def _tokens(figures: Figures, name: str) -> float:
    runs = [run for run in figures.runs if run.system == name]
    return sum(run.tokens for run in runs) / max(1, sum(len(run.latencies) for run in runs))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(measured: Measured, facts: Mapping[str, str]) -> dict[str, object]:
    """Every figure, with each round's own."""
    figures = measured.figures
    runs = [
        {
            **{k: v for k, v in asdict(run).items() if k != "answers"},
            "latencies": [round(value, 5) for value in run.latencies],
            "p50_ms": run.p50 * 1000,
            "requests_per_second": run.requests_per_second,
        }
        for run in figures.runs
    ]
    goals = [
        {
            "goal": f"{goal.scene}: {goal.text}",
            "bound": goal.bound,
            **asdict(goal.figure(figures)),
            "met": goal.is_met(figures),
        }
        for goal in GOALS
    ]
    told = {
        "machine": dict(facts),
        "scenes": [asdict(scene) for scene in measured.scenes],
        "agreement": measured.agreement and asdict(measured.agreement),
        "missing": dict(measured.missing),
        "goals": goals,
        "runs": runs,
    }
    return {key: _plain(value) for key, value in told.items()}


def _plain(value: object) -> object:
    """JSON has no NaN."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def draw(measured: Measured, path: Path) -> None:
    """The bar plot: median latency of one client and throughput of the crowd, with the rounds' range."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(11, 3.6), layout="constrained")
    shown = [(scene, measure, text) for scene, measure, text in zip(measured.scenes, _MEASURES, _AXES, strict=False)]
    for place, (scene, measure, text) in enumerate(shown, start=1):
        axes = canvas.add_subplot(1, len(shown), place)
        found: dict[str, Interval] = {
            name: measured.figures.interval(scene.name, name, measure)
            for name in NAMES
            if measured.figures.of(scene.name, name)
        }
        medians = [item.median for item in found.values()]
        spread = [[i.median - i.low for i in found.values()], [i.high - i.median for i in found.values()]]
        colours = ["tab:orange" if name == "winnow" else "tab:blue" for name in found]
        axes.barh(list(found), medians, xerr=spread, color=colours, ecolor="0.3", capsize=2)
        axes.invert_yaxis()
        axes.set_title(scene.title, fontsize=10)
        axes.set_xlabel(text)
    canvas.savefig(path, dpi=120)


_MEASURES = (p50_ms, throughput, p50_ms)
_AXES = ("p50 latency, ms (less is better)", "requests/s (more is better)", "p50 latency, ms (less is better)")
