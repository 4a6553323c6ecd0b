"""The page and the document of a measurement: `markdown` and `document`. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.loadtests.peers.dials.savings import DRAWS, Interval
from winnow.loadtests.peers.dials.settings import K, Setting
from winnow.loadtests.peers.dials.verdicts import MOST_REFUSED, Figures, Row, Saving

COMMAND = "python -m winnow.loadtests.peers.dials"
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


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured: figures for each load, on how many prompts, when, where, and against which server."""

    started: str
    machine: Mapping[str, Any]
    server: str
    prompts: int
    seed: int
    is_quick: bool
    loads: Sequence[Figures]

    @property
    def dials(self) -> list[Setting]:
        """All dials, in the order of the longest menu. Deadlines are those of one load, their milliseconds are other loads'."""
        loads = sorted(self.loads, key=lambda load: -len(load.dials))
        found: dict[str, Setting] = {}
        for row in (row for load in loads for row in load.dials):
            found.setdefault(row.setting.name, row.setting)
        return list(found.values())

    def row(self, load: Figures, name: str) -> Row | None:
        """A dial's row under a load, where it was measured."""
        return next((row for row in load.dials if row.setting.name == name), None)


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
        lines.append(f"- {_capital(clients(load.clients))}: {_fewest(load)}{noise}")
    return [*lines, ""]


def sentence(measurement: Measurement, name: str) -> str:
    """Whether a dial pays, in what, and at which loads."""
    found = {load.clients: row.saving for load in measurement.loads if (row := measurement.row(load, name))}
    savings = {count: saving for count, saving in found.items() if saving is not None}
    kinds = {
        "tokens": {count: (saving.tokens, saving.pays_in_tokens) for count, saving in savings.items()},
        "latency": {count: (saving.latency, saving.pays_in_latency) for count, saving in savings.items()},
    }
    paying, not_paying, unknown = list[str](), dict[str, list[int]](), dict[str, list[int]]()
    for what, told in kinds.items():
        if pays := [
            f"{percent(interval.value)} at {clients(c)}" for c, (interval, pays) in told.items() if interval and pays
        ]:
            paying.append(f"in {what} ({_join(pays)})")
        not_paying[what] = [count for count, (interval, pays) in told.items() if interval and not pays]
        unknown[what] = [count for count, (interval, _) in told.items() if not interval]
    if not paying and not any(not_paying.values()):
        said = f"**{name} cannot be compared**."
    elif paying:
        said = f"**{name} pays** {_join(paying)}" + (
            f"; not {_at_loads(not_paying)}." if any(not_paying.values()) else "."
        )
    else:
        said = f"**{name} does not pay** {_at_loads(not_paying)}."
    if any(unknown.values()):
        limit = percent(MOST_REFUSED)
        said += f" No exact K has its mean R_c, or more than {limit} was refused: {_at_loads(unknown)}."
    return said


def _at_loads(loads: Mapping[str, Sequence[int]]) -> str:
    """As `in tokens at 1 and 8 clients, in latency at 8 clients`; once for both where the loads are the same."""
    whats: dict[tuple[int, ...], list[str]] = {}
    for what, counts in loads.items():
        if counts:
            whats.setdefault(tuple(counts), []).append(what)
    return ", ".join(
        f"in {' or '.join(names)} at {_join([str(c) for c in counts[:-1]] + [clients(counts[-1])])}"
        for counts, names in whats.items()
    )


def _fewest(load: Figures) -> str:
    if not load.exact:
        return ""
    best = min(load.exact, key=lambda row: row.wrong.value)
    most = load.exact[-1]
    more = (
        f", not with {most.setting.name} ({percent(most.wrong.value)}), which has more reward"
        if best is not most
        else ""
    )
    return f"of exact best of K, {best.setting.name} has the fewest wrong answers ({percent(best.wrong.value)}){more}. "


def _load(load: Figures) -> list[str]:
    headings = [
        "setting", "mean R_c", "wrong", "unsafe", "p50 ms", "p90 ms", "p99 ms", "K started", "K scored", "tokens", "ended early",
        "approximate", "refused",
    ]  # fmt: skip
    title = f"## {_capital(clients(load.clients))}, {load.prompts} prompts"
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


def percent(share: float) -> str:
    """As `12 %` and `1.5 %`."""
    number = round(100 * share, 1) or 0.0
    return (f"{number:.0f} %" if abs(number) >= 10 or not number else f"{number:.1f} %").replace("-", "−")


def clients(count: int) -> str:
    """As `1 client` and `8 clients`."""
    return f"{count} client{'' if count == 1 else 's'}"


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
