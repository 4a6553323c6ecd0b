"""What was measured in all, and what is said of it in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.settings import Setting
from winnow.loadtests.benchmarks.early_stopping.verdicts import MOST_REFUSED, Figures, Row


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


def fewest(load: Figures) -> str:
    """Which exact K has the fewest wrong answers; reward is not everything."""
    if not load.exact:
        return ""
    best = min(load.exact, key=lambda row: row.wrong.value)
    most = load.exact[-1]
    more = (
        f", not with {most.setting.name} ({percent(most.wrong.value)}), which has more reward"
        if best.wrong.value < most.wrong.value
        else ""
    )
    return f"of exact best of K, {best.setting.name} has the fewest wrong answers ({percent(best.wrong.value)}){more}. "


def percent(share: float) -> str:
    """As `12 %` and `1.5 %`."""
    number = round(100 * share, 1) or 0.0
    return (f"{number:.0f} %" if abs(number) >= 10 or not number else f"{number:.1f} %").replace("-", "−")


def clients(count: int) -> str:
    """As `1 client` and `8 clients`."""
    return f"{count} client{'' if count == 1 else 's'}"


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def capital(text: str) -> str:
    """Begins as a sentence does."""
    return text[:1].upper() + text[1:]
