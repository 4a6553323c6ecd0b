"""Each setting in figures, and whether a dial pays: `figures`. Pure.

A dial pays if the 95 % interval of its saving is above 0. For latency it must also be above the noise: how much the median of one setting
differs when it is run twice, which an interval over the prompts of one run cannot know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.measuring import Load, Outcome, Run
from winnow.loadtests.benchmarks.early_stopping.savings import (
    Draw,
    Estimated,
    Interval,
    draws,
    estimated,
    mean,
    median,
    saving,
)
from winnow.loadtests.benchmarks.early_stopping.settings import Setting
from winnow.loadtests.measures import percentile

MOST_REFUSED = 0.02
"""The share of refusals up to which a dial is compared: who is refused is not chosen by chance."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What a dial saves against exact best of K at equal mean R_c, in sampled tokens and in median latency; None if it cannot be said."""

    tokens: Interval | None
    latency: Interval | None
    pays_in_tokens: bool
    pays_in_latency: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A setting under a load. Shares are of answers, except `refused`, which is of requests. An exact K has no saving."""

    setting: Setting
    reward: Interval
    wrong: Interval
    unsafe: Interval
    p50_ms: Interval
    p90_ms: float
    p99_ms: float
    started: float
    finished: float
    tokens: Interval
    truncated: float
    approximate: float
    refused: float
    saving: Saving | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The rows of a load, exact ones first. `noise`: the share by which the median of K = 16 differed between two runs."""

    clients: int
    prompts: int
    seconds: float
    noise: float
    rows: tuple[Row, ...]

    @property
    def exact(self) -> list[Row]:
        """The reference curve."""
        return [row for row in self.rows if row.setting.is_exact]

    @property
    def dials(self) -> list[Row]:
        """The others."""
        return [row for row in self.rows if not row.setting.is_exact]


@dataclass(frozen=True, slots=True)
class _Estimates:
    """What is needed of a run for comparisons."""

    run: Run
    reward: Estimated
    tokens: Estimated
    p50_ms: Estimated

    @classmethod
    def of(cls, run: Run, drawn: Sequence[Draw]) -> _Estimates:
        return cls(
            run,
            estimated(_values(run, lambda outcome: outcome.reward), mean, drawn),
            estimated(_values(run, lambda outcome: outcome.tokens), mean, drawn),
            estimated(_values(run, lambda outcome: outcome.ms), median, drawn),
        )


def figures(load: Load, seed: int = 0) -> Figures:
    """Everything that the page says of a load; runs without a single answer are left out."""
    drawn = draws(len(load.repeat.outcomes), seed)
    known = [run for run in (*load.exact, *load.dials) if run.refused < 1]
    found = [_Estimates.of(run, drawn) for run in known]
    exact = [each for each in found if each.run.setting.is_exact and each.run.refused <= MOST_REFUSED]
    noise = _noise(load)
    rows = (_row(each, None if each.run.setting.is_exact else _saving(each, exact, noise), drawn) for each in found)
    return Figures(
        load.clients,
        len(load.repeat.outcomes),
        sum(run.seconds for run in (load.repeat, *load.runs)),
        noise,
        tuple(rows),
    )


def _noise(load: Load) -> float:
    again = next((run for run in load.runs if run.setting == load.repeat.setting and run.refused < 1), load.repeat)
    first, second = (
        median([outcome.ms for outcome in run.outcomes if outcome is not None]) for run in (load.repeat, again)
    )
    return abs(first / second - 1)


def _saving(dial: _Estimates, exact: Sequence[_Estimates], noise: float) -> Saving:
    if not exact or dial.run.refused > MOST_REFUSED:
        return Saving(None, None, False, False)
    rewards = [each.reward for each in exact]
    tokens = saving(dial.tokens, dial.reward, [each.tokens for each in exact], rewards)
    latency = saving(dial.p50_ms, dial.reward, [each.p50_ms for each in exact], rewards)
    pays_in_tokens = tokens is not None and tokens.is_above_zero
    pays_in_latency = latency is not None and latency.low is not None and latency.low > noise
    return Saving(tokens, latency, pays_in_tokens, pays_in_latency)


def _row(found: _Estimates, saved: Saving | None, drawn: Sequence[Draw]) -> Row:
    run = found.run
    answered = [outcome for outcome in run.outcomes if outcome is not None]
    spans = sorted(outcome.ms for outcome in answered)
    return Row(
        setting=run.setting,
        reward=found.reward.interval,
        wrong=estimated(_values(run, lambda outcome: outcome.wrong), mean, drawn).interval,
        unsafe=estimated(_values(run, lambda outcome: outcome.unsafe), mean, drawn).interval,
        p50_ms=found.p50_ms.interval,
        p90_ms=percentile(spans, 90),
        p99_ms=percentile(spans, 99),
        started=mean([outcome.started for outcome in answered]),
        finished=mean([outcome.finished for outcome in answered]),
        tokens=found.tokens.interval,
        truncated=mean([outcome.is_truncated for outcome in answered]),
        approximate=mean([outcome.is_approximate for outcome in answered]),
        refused=run.refused,
        saving=saved,
    )


def _values(run: Run, read: Callable[[Outcome], Any]) -> list[float | None]:
    return [None if outcome is None else float(read(outcome)) for outcome in run.outcomes]
