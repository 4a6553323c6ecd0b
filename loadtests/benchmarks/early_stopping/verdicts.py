"""Each setting in figures, and whether early stopping pays: `figures`. Pure.

A setting pays if the 95 % interval of its saving is above 0. For latency it must also be above the noise, the
difference of the medians of one setting run twice, which an interval over the prompts of one run does not include.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean
from typing import Any

from winnow.loadtests.benchmarks.early_stopping.measuring import Load, Outcome, Run
from winnow.loadtests.benchmarks.early_stopping.savings import Estimate, Resample, estimate, saving
from winnow.loadtests.benchmarks.early_stopping.settings import Setting
from winnow.models.statistics import Interval, median, percentile, resamples

MAX_REFUSED = 0.02
"""The share of refusals up to which a setting is compared: refused requests are not a random choice."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A setting against exact best of K at equal mean R_c; None if unknown.

    `tokens` and `latency` (the median) are the shares saved; `tail` is p99 and `throughput` requests a second, each as
    a multiple of exact best of K's.
    """

    tokens: Interval | None
    latency: Interval | None
    tail: Interval | None
    throughput: Interval | None
    pays_in_tokens: bool
    pays_in_latency: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A setting under a load. Shares are of answers, `refused` of requests. An exact K has no saving."""

    setting: Setting
    reward: Interval
    wrong: Interval
    unsafe: Interval
    p50_ms: Interval
    p90_ms: float
    p99_ms: float
    requests_per_second: Interval
    started: float
    finished: float
    tokens: Interval
    truncated: float
    approximate: float
    refused: float
    saving: Saving | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The rows of a load, exact ones first. `noise`: the relative difference of the medians of K = 16 run twice."""

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
    def early_stopping(self) -> list[Row]:
        """The other rows."""
        return [row for row in self.rows if not row.setting.is_exact]


@dataclass(frozen=True, slots=True)
class _Estimates:
    """The figures of a run that are compared."""

    run: Run
    reward: Estimate
    tokens: Estimate
    p50_ms: Estimate
    p99_ms: Estimate
    mean_ms: Estimate

    @classmethod
    def of(cls, run: Run, drawn: Sequence[Resample]) -> _Estimates:
        return cls(
            run,
            estimate(_values(run, lambda outcome: outcome.reward), fmean, drawn),
            estimate(_values(run, lambda outcome: outcome.tokens), fmean, drawn),
            *(estimate(_values(run, lambda outcome: outcome.ms), each, drawn) for each in (median, _p99, fmean)),
        )


def _p99(values: Sequence[float]) -> float:
    return percentile(sorted(values), 99)


def figures(load: Load, seed: int = 0) -> Figures:
    """Return the page's figures of a load; runs without a single answer are left out."""
    prompts = len(load.repeat.outcomes)
    drawn = list(resamples(prompts, seed))
    found = [_Estimates.of(run, drawn) for run in (*load.exact, *load.early_stopping) if run.answered]
    exact = [each for each in found if each.run.setting.is_exact and each.run.refused <= MAX_REFUSED]
    noise = _noise(load)
    rows = (_row(each, None if each.run.setting.is_exact else _saving(each, exact, noise), drawn) for each in found)
    seconds = sum(run.seconds for run in (load.repeat, *load.runs))
    return Figures(load.clients, prompts, seconds, noise, tuple(rows))


def _noise(load: Load) -> float:
    again = next((run for run in load.runs if run.setting == load.repeat.setting and run.answered), load.repeat)
    first, second = (median(outcome.ms for outcome in run.answered) for run in (load.repeat, again))
    return abs(first / second - 1)


def _saving(found: _Estimates, exact: Sequence[_Estimates], noise: float) -> Saving:
    if not exact or found.run.refused > MAX_REFUSED:
        return Saving(None, None, None, None, False, False)
    rewards = [each.reward for each in exact]
    tokens, latency, tail, mean = (
        saving(read(found), found.reward, [read(each) for each in exact], rewards)
        for read in (_tokens, _p50_ms, _p99_ms, _mean_ms)
    )
    return Saving(
        tokens,
        latency,
        _mapped(tail, lambda saved: 1 - saved),
        _mapped(mean, lambda saved: 1 / (1 - saved)),
        pays_in_tokens=tokens is not None and tokens.low > 0,
        pays_in_latency=latency is not None and latency.low > noise,
    )


_tokens, _p50_ms = attrgetter("tokens"), attrgetter("p50_ms")
_p99_ms, _mean_ms = attrgetter("p99_ms"), attrgetter("mean_ms")


def _mapped(interval: Interval | None, value: Callable[[float], float]) -> Interval | None:
    """Return an interval of another figure, which is a monotone function of this one."""
    if interval is None:
        return None
    low, high = sorted(map(value, (interval.low, interval.high)))
    return Interval(value(interval.value), low, high, interval.count)


def _per_second(mean_ms: Interval, clients: int) -> Interval:
    """Return the requests a second of a closed loop, by Little's law."""
    mapped = _mapped(mean_ms, lambda ms: 1000 * clients / ms)
    assert mapped
    return mapped


def _row(found: _Estimates, saved: Saving | None, drawn: Sequence[Resample]) -> Row:
    run, answered = found.run, found.run.answered
    spans = sorted(outcome.ms for outcome in answered)
    return Row(
        setting=run.setting,
        reward=found.reward.interval,
        wrong=estimate(_values(run, lambda outcome: outcome.wrong), fmean, drawn).interval,
        unsafe=estimate(_values(run, lambda outcome: outcome.unsafe), fmean, drawn).interval,
        p50_ms=found.p50_ms.interval,
        p90_ms=percentile(spans, 90),
        p99_ms=percentile(spans, 99),
        requests_per_second=_per_second(found.mean_ms.interval, run.clients),
        started=fmean(outcome.started for outcome in answered),
        finished=fmean(outcome.finished for outcome in answered),
        tokens=found.tokens.interval,
        truncated=fmean(outcome.is_truncated for outcome in answered),
        approximate=fmean(outcome.is_approximate for outcome in answered),
        refused=run.refused,
        saving=saved,
    )


def _values(run: Run, read: Callable[[Outcome], Any]) -> list[float | None]:
    return [None if outcome is None else float(read(outcome)) for outcome in run.outcomes]
