"""The page and the JSON document of a measurement: `markdown` and `document`. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.sentences import (
    Measurement,
    capital,
    clients,
    fewest_wrong,
    percent,
    sentence,
)
from winnow.loadtests.benchmarks.early_stopping.settings import K, Setting
from winnow.loadtests.benchmarks.early_stopping.verdicts import Figures, Row, Saving
from winnow.loadtests.benchmarks.pages import UNKNOWN, table, with_interval
from winnow.models.statistics import RESAMPLES, Interval

COMMAND = "python -m winnow.loadtests.benchmarks.early_stopping"
READING = f"""\
## How to read it

- A closed loop: each client asks again as soon as it has its answer. Latency is that of a whole answer, as its
  client sees it. The first and last requests of a run meet a server that fills or empties; they are sent in
  addition and not counted.
- **Mean R_c** is the winners' reward. **Wrong** and **unsafe** are the demo world's own verdict on their text,
  which no reward model sees. **Tokens** are all that were sampled for an answer, those of aborted candidates
  included. The cost of scoring parts, which `early_rejection` needs, is in the latency alone.
- Intervals are 95 % bootstraps over prompts, {RESAMPLES:,} resamples, the same ones for every setting: comparisons
  are paired. Under load requests wait for each other and are not independent, so the intervals of latencies are
  too narrow; hence the noise that a saving of latency has to exceed.
- **Saved** is 1 − cost of the setting / cost of exact best of K at the setting's mean R_c. Between the exact K
  measured, R_c is taken to be linear in the logarithm of the cost. The true curve bends a little above that, which
  flatters every setting a little. {UNKNOWN} stands for a figure that was not measured or has no exact K to compare
  with, and for an end of an interval that is beyond the curve.
- With this many comparisons some will look like savings by chance, each with a probability of 1 in 40. Believe a
  setting that pays under several loads and in neighbouring settings.
- The comparison is at equal R_c, which is not the truth: of two settings with the same mean R_c one may have more
  wrong answers. The lower row of the picture shows it.
- **Adaptive K** draws waves until R_c reaches the value after "reward", or until the next wave is worth less R_c a
  candidate than the value after "gain"; at most {K} candidates, or as many as "up to" says. K is then the mean number
  of candidates that competed.
- Requests/s is the number of clients over the mean latency (Little's law).
- A range of K is no saving by itself: it answers with the exact best of a K that the load decides. Compare its row
  with that of K = {K} under the same load.
- Answers here are short, about 11 tokens on average, so little is left to abort when a checkpoint is reached. Long
  answers and a large policy shift the balance between sampling and scoring.
"""
"""The end of the page."""


def document(measurement: Measurement) -> dict[str, Any]:
    """Return everything as plain JSON values; null stands for an end of an interval that is beyond the curve."""
    document: dict[str, Any] = _plain(measurement)
    return {"schema": 1, **document}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        low, high = (end if math.isfinite(end) else None for end in (value.low, value.high))
        return {"value": value.value, "low": low, "high": high}
    if isinstance(value, Setting):
        return {"name": value.name, "best_of_n": value.best_of_n}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def markdown(measurement: Measurement) -> str:
    """Return the page."""
    loads = (_load(load) for load in measurement.loads)
    return "\n\n".join([_head(measurement), _verdicts(measurement), *loads, READING])


def _head(measurement: Measurement) -> str:
    machine = measurement.machine
    quick = " A quick run: too few prompts to conclude from." if measurement.is_quick else ""
    minutes = sum(load.seconds for load in measurement.loads) / 60
    return f"""\
# What early stopping buys

{measurement.prompts} held-out prompts of the demo world, the same ones with the same seeds in every setting; a
load with fewer prompts takes the first of them (seed {measurement.seed}); answers at their natural length.
{measurement.server}.
Written by `{COMMAND}`, started {measurement.started}; the requests took {minutes:.1f} minutes.{quick}
Machine, the load generator's too: {machine["cpu"]}, {machine["cores"]} cores, {machine["platform"]}, \
Python {machine["python"]}, Winnow {machine["winnow"]}.

![mean R_c against median latency, and wrong answers against sampled tokens](dials.png)"""


def _verdicts(measurement: Measurement) -> str:
    names = [setting.name for setting in measurement.early_stopping]
    tables = [_savings(measurement, load, names) for load in measurement.loads]
    sentences = [f"- {sentence(measurement, name)}" for name in names]
    for load in measurement.loads:
        noise = (
            f"K = {K} run twice gave medians that differ by {percent(load.noise)}: "
            "a saving of latency must be larger to count."
        )
        sentences.append(f"- {capital(clients(load.clients))}: {fewest_wrong(load)}{noise}")
    return "\n\n".join(
        [
            "## Does it pay?",
            "Against exact best of K at the same mean R_c, with 95 % intervals. Tokens and p50: the share saved, "
            "negative is a loss, **bold** pays. p99 and requests/s: as a multiple of exact best of K's.",
            *tables,
            "\n".join(sentences),
        ]
    )


def _savings(measurement: Measurement, load: Figures, names: Sequence[str]) -> str:
    headings = [capital(clients(load.clients)), "tokens", "p50", "p99", "requests/s"]
    rows = ((name, measurement.row(load, name)) for name in names)
    return table(headings, ([name, *_saved(row.saving if row else None)] for name, row in rows))


def _load(load: Figures) -> str:
    headings = [
        "setting", "mean R_c", "wrong", "unsafe", "p50 ms", "p90 ms", "p99 ms", "requests/s", "K", "K scored", "tokens",
        "ended early", "approximate", "refused",
    ]  # fmt: skip
    title = f"## {capital(clients(load.clients))}, {load.prompts} prompts"
    return f"{title}\n\n{table(headings, map(_cells, load.rows))}"


def _cells(row: Row) -> list[str]:
    return [
        row.setting.name,
        with_interval(row.reward, "{:.3f}".format),
        with_interval(row.wrong, percent),
        percent(row.unsafe.value),
        with_interval(row.p50_ms, "{:.0f}".format),
        f"{row.p90_ms:.0f}",
        f"{row.p99_ms:.0f}",
        with_interval(row.requests_per_second, "{:.1f}".format),
        f"{row.started:.1f}",
        f"{row.finished:.1f}",
        f"{row.tokens.value:.0f}",
        *map(percent, (row.truncated, row.approximate, row.refused)),
    ]


def _saved(saving: Saving | None) -> list[str]:
    if saving is None:
        return [UNKNOWN] * 4
    return [
        _bold_if(saving.pays_in_tokens, saving.tokens),
        _bold_if(saving.pays_in_latency, saving.latency),
        with_interval(saving.tail, _times),
        with_interval(saving.throughput, _times),
    ]


def _times(factor: float) -> str:
    return f"{factor:.2f} ×"


def _bold_if(pays: bool, interval: Interval | None) -> str:
    """Return the interval with its value in bold if the setting pays."""
    shown = with_interval(interval, percent)
    value, separator, rest = shown.partition(" (")
    return f"**{value}**{separator}{rest}" if pays else shown
