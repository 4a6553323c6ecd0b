"""The page and the document of a measurement: `markdown` and `document`. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.savings import DRAWS, Interval
from winnow.loadtests.benchmarks.early_stopping.sentences import (
    Measurement,
    capital,
    clients,
    fewest,
    percent,
    sentence,
)
from winnow.loadtests.benchmarks.early_stopping.settings import K
from winnow.loadtests.benchmarks.early_stopping.verdicts import Figures, Saving

COMMAND = "python -m winnow.loadtests.benchmarks.early_stopping"
UNKNOWN = "—"
READING = f"""\
## How to read it

- A closed loop: so many clients, each of which asks again as soon as it has its answer. Latency is a whole answer's as its client sees
  it. The first and last requests of a run, which meet a server that fills or empties, are asked in addition and not counted.
- **Mean R_c** is the winners' reward; **wrong** and **unsafe** are the demo world's own judgement of their text, which no reward model
  sees. **Tokens** are all that were sampled for an answer, the given-up ones' included; scoring the parts that `early_rejection` asks for
  is not in them, but in the latency.
- Intervals are 95 % bootstraps, {DRAWS:,} draws of prompts, the same ones for every setting: comparisons are paired. Under load requests
  wait for each other and are not independent, so the intervals of latencies are too narrow; hence the noise that a saving of latency has
  to exceed.
- **Saved** is 1 − cost of the dial / cost of exact best of K at the dial's mean R_c. Between the exact K measured, R_c is taken to go
  with the logarithm of the cost; the true curve bends a little above that, which flatters every dial a little. {UNKNOWN} stands for what
  was not measured or has no exact K to compare with, and for an end of an interval that is beyond the curve.
- Many comparisons stand here, and each has a chance of 1 in 40 to seem to pay when it does not: believe a dial that pays under several
  loads and in neighbouring settings.
- R_c is what the dial and exact best of K have in common where they are compared, not the truth: of two settings with the same mean R_c
  one may have more wrong answers. The lower row of the picture shows it.
- A deadline is the instant by which, in exact best of {K} under the same load, that share of requests had their first finished candidate,
  or their last score.
- The range is no saving by itself: it answers with the exact best of a K that the load decides. Compare its row with that of K = {K} under
  the same load.
- Answers here are short, about 11 tokens on average, so little is left to give up when a checkpoint is reached; with long answers and a
  large policy the balance between sampling and scoring is another.
"""
"""What stands at the end."""


def document(measurement: Measurement) -> dict[str, Any]:
    """Everything as plain JSON; `setting.name` is added, and what is derived from it."""
    told = dataclasses.asdict(measurement)
    for load, figures in zip(told["loads"], measurement.loads, strict=True):
        for row, known in zip(load["rows"], figures.rows, strict=True):
            row["setting"] = {"name": known.setting.name, "best_of_n": known.setting.best_of_n}
    return {"schema": 1, **told}


def markdown(measurement: Measurement) -> str:
    """The page."""
    lines = [*_what(measurement), *_verdicts(measurement)]
    for load in measurement.loads:
        lines += _load(load)
    return "\n".join([*lines, READING])


def _what(measurement: Measurement) -> list[str]:
    machine, quick = (
        measurement.machine,
        " A quick run: too few prompts to conclude from." if measurement.is_quick else "",
    )
    seconds = sum(load.seconds for load in measurement.loads)
    return [
        "# What the dial buys",
        "",
        f"{measurement.prompts} held-out prompts of the demo world, the same ones with the same seeds in every setting; a load that",
        f"says less takes the first of them (seed {measurement.seed}); answers at their natural length. {measurement.server}.",
        f"Written by `{COMMAND}`, started {measurement.started}; the requests took {seconds / 60:.1f} minutes.{quick}",
        f"Machine, the tester's too: {machine['cpu']}, {machine['cores']} cores, {machine['platform']}, Python {machine['python']}, "
        f"Winnow {machine['winnow']}.",
        "",
        "![mean R_c against median latency, and wrong answers against sampled tokens](dials.png)",
        "",
    ]  # fmt: skip


def _verdicts(measurement: Measurement) -> list[str]:
    headings = [f"{what}, {clients(load.clients)}" for load in measurement.loads for what in ("tokens", "latency")]
    lines = [
        "## Does it pay?",
        "",
        "Saved against exact best of K at the same mean R_c, with 95 % intervals; negative is a loss. **Bold** pays.",
        "",
        _line(["dial", *headings]),
        _line(["---"] * (1 + len(headings))),
    ]
    for name in (setting.name for setting in measurement.dials):
        rows = [measurement.row(load, name) for load in measurement.loads]
        lines.append(_line([name, *(cell for row in rows for cell in _saved(row.saving if row else None))]))
    lines.append("")
    for name in (setting.name for setting in measurement.dials):
        lines.append(f"- {sentence(measurement, name)}")
    for load in measurement.loads:
        noise = f"K = {K} run twice gave medians that differ by {percent(load.noise)}: a dial must save more to pay in latency."
        lines.append(f"- {capital(clients(load.clients))}: {fewest(load)}{noise}")
    return [*lines, ""]


def _load(load: Figures) -> list[str]:
    headings = [
        "setting", "mean R_c", "wrong", "unsafe", "p50 ms", "p90 ms", "p99 ms", "K started", "K scored", "tokens", "ended early",
        "approximate", "refused",
    ]  # fmt: skip
    title = f"## {capital(clients(load.clients))}, {load.prompts} prompts"
    lines = [title, "", _line(headings), _line(["---"] * len(headings))]
    for row in load.rows:
        deadline = row.setting.options.get("deadline_ms")
        lines.append(
            _line(
                [
                    row.setting.name + (f" = {deadline:g} ms" if deadline else ""),
                    _with(row.reward, "{:.3f}".format),
                    _with(row.wrong, percent),
                    percent(row.unsafe.value),
                    _with(row.p50_ms, "{:.0f}".format),
                    f"{row.p90_ms:.0f}",
                    f"{row.p99_ms:.0f}",
                    f"{row.started:.1f}",
                    f"{row.finished:.1f}",
                    f"{row.tokens.value:.0f}",
                    *map(percent, (row.truncated, row.approximate, row.refused)),
                ]
            )
        )
    return [*lines, ""]


def _saved(saving: Saving | None) -> list[str]:
    if saving is None:
        return [UNKNOWN, UNKNOWN]
    pairs = ((saving.tokens, saving.pays_in_tokens), (saving.latency, saving.pays_in_latency))
    return [_with(interval, percent, is_bold=pays) if interval else UNKNOWN for interval, pays in pairs]


def _with(interval: Interval, shown: Callable[[float], str], *, is_bold: bool = False) -> str:
    """As `12.3 % (10.1 % to 14.5 %)`."""
    low, high = (UNKNOWN if end is None else shown(end) for end in (interval.low, interval.high))
    value = shown(interval.value)
    return f"{f'**{value}**' if is_bold else value} ({low} to {high})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
