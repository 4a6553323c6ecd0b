"""The whole measurement, and its verdicts in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.settings import Setting
from winnow.loadtests.benchmarks.early_stopping.verdicts import MAX_REFUSED, Figures, Row


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of each load, with the number of prompts, the time, the machine and the server."""

    started: str
    machine: Mapping[str, Any]
    server: str
    prompts: int
    seed: int
    is_quick: bool
    loads: Sequence[Figures]

    @property
    def early_stopping(self) -> list[Setting]:
        """All early-stopping settings, in the order of the longest menu."""
        loads = sorted(self.loads, key=lambda load: -len(load.early_stopping))
        found: dict[str, Setting] = {}
        for row in (row for load in loads for row in load.early_stopping):
            found.setdefault(row.setting.name, row.setting)
        return list(found.values())

    def row(self, load: Figures, name: str) -> Row | None:
        """Return the row of setting `name` under a load, or None if it was not measured there."""
        return next((row for row in load.early_stopping if row.setting.name == name), None)


def sentence(measurement: Measurement, name: str) -> str:
    """Return whether a setting pays, in tokens or latency, and at which loads."""
    found = {load.clients: row.saving for load in measurement.loads if (row := measurement.row(load, name))}
    savings = {count: saving for count, saving in found.items() if saving is not None}
    kinds = {
        "tokens": {count: (saving.tokens, saving.pays_in_tokens) for count, saving in savings.items()},
        "latency": {count: (saving.latency, saving.pays_in_latency) for count, saving in savings.items()},
    }
    paying, not_paying, unknown = list[str](), dict[str, list[int]](), dict[str, list[int]]()
    for kind, outcomes in kinds.items():
        if pays := [
            f"{percent(interval.value)} at {clients(c)}"
            for c, (interval, pays) in outcomes.items()
            if interval and pays
        ]:
            paying.append(f"in {kind} ({_join(pays)})")
        not_paying[kind] = [count for count, (interval, pays) in outcomes.items() if interval and not pays]
        unknown[kind] = [count for count, (interval, _) in outcomes.items() if not interval]
    if not paying and not any(not_paying.values()):
        verdict = f"**{name} cannot be compared**."
    elif paying:
        exceptions = f"; not {_at_loads(not_paying)}." if any(not_paying.values()) else "."
        verdict = f"**{name} pays** {_join(paying)}{exceptions}"
    else:
        verdict = f"**{name} does not pay** {_at_loads(not_paying)}."
    if any(unknown.values()):
        limit = percent(MAX_REFUSED)
        verdict += f" No exact K has its mean R_c, or more than {limit} was refused: {_at_loads(unknown)}."
    return verdict


def _at_loads(loads: Mapping[str, Sequence[int]]) -> str:
    """Return `in tokens at 1 and 8 clients, in latency at 8 clients`; kinds with the same loads share one entry."""
    kinds: dict[tuple[int, ...], list[str]] = {}
    for kind, counts in loads.items():
        if counts:
            kinds.setdefault(tuple(counts), []).append(kind)
    return ", ".join(
        f"in {' or '.join(names)} at {_join([str(c) for c in counts[:-1]] + [clients(counts[-1])])}"
        for counts, names in kinds.items()
    )


def fewest_wrong(load: Figures) -> str:
    """Return a sentence on the exact K with the fewest wrong answers, not always the one with the most reward."""
    if not load.exact:
        return ""
    best = min(load.exact, key=lambda row: row.wrong.value)
    most = load.exact[-1]
    more = (
        f", not {most.setting.name} ({percent(most.wrong.value)}), which has more reward"
        if best.wrong.value < most.wrong.value
        else ""
    )
    return f"of exact best of K, {best.setting.name} has the fewest wrong answers ({percent(best.wrong.value)}){more}. "


def percent(share: float) -> str:
    """Return a share as `12 %` or `1.5 %`."""
    number = round(100 * share, 1) or 0.0
    return (f"{number:.0f} %" if abs(number) >= 10 or not number else f"{number:.1f} %").replace("-", "−")


def clients(count: int) -> str:
    """Return `1 client` or `8 clients`."""
    return f"{count} client{'' if count == 1 else 's'}"


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def capital(text: str) -> str:
    """Return `text` with its first letter as a capital."""
    return text[:1].upper() + text[1:]
