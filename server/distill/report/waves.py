"""The cost and gain of waves: reward against tokens, beside every fixed K, the reliability of a stop, and k.

A run that sampled all K at once shows what stops would have cost, by following its own candidates in several orders. A
run in waves shows what it cost. Of it, only the first waves are a fair sample of the policy's answers: a later wave was
sampled because the ones before it were poor. So a fixed K up to the first wave is measured. A larger one is estimated:
prompts that have so many candidates count as they are, and the others with what the run's table of expected gains says
of the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from winnow.models.gains import GainTable
from winnow.models.statistics import Interval, best_weights, sizes_up_to
from winnow.server.distill.records import DrawnWaves, Record
from winnow.server.distill.report.answers import Answers, Figure, Figures
from winnow.server.distill.traces import PromptTrace
from winnow.server.pipeline.waves import Waves

if TYPE_CHECKING:
    from winnow.models.statistics import IntArray

STOPS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98)
"""The rewards at which a stop is simulated."""
SIZE = Waves()
"""The sizes of the simulated waves."""
ORDERS = 4
"""The orders in which a prompt's candidates are followed: turned by a quarter each."""
EVERY_SIZE = 32
"""The K up to which every fixed K is shown; above it 1, 2, 4, …"""
_STOP = ("reward", "tokens", "k", "stopped", "kept", "loss")
NAMES = {"first_tokens", "fixed", "estimated", "spent", "k", *(f"stop_{name}" for name in _STOP)}
"""The names of this module's figures."""
ESTIMATES = 6
"""The most sizes beyond the first wave that are estimated."""


@dataclass(frozen=True, slots=True)
class FixedK:
    """The best of `size` candidates, for `tokens` a prompt; estimated where no fair sample has so many."""

    size: int
    reward: Interval
    tokens: float
    is_estimated: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedStop:
    """Waves that stop once R_c reaches `at`: the R_c they end with, the tokens and the k of a prompt.

    `stopped` is the share that stops before K. Of those, `kept` have an answer as good as the best of K, and all of
    them together lose `loss` of R_c to it on average. `tokens_alike` is what a fixed K of the same R_c takes; None if
    it lies outside what was measured.
    """

    at: float
    reward: Interval
    tokens: float
    candidates: float
    stopped: float
    kept: float
    loss: float
    tokens_alike: float | None


@dataclass(frozen=True, slots=True)
class WaveGain:
    """The wave with this `number`, from 2: the prompts that had it, their R_c before, and its growth by the wave."""

    number: int
    prompts: int
    before: float
    growth: float
    growth_by_candidate: float


@dataclass(slots=True)
class DrawnCounts:
    """Counts over the prompts that were sampled in waves; `waves` has, by number, sums of what `WaveGain` averages.

    `expected_loss` sums what the table expects all K to have added to prompts that stopped before, of which there are
    `expectations`.
    """

    prompts: int = 0
    candidates: Counter[int] = field(default_factory=Counter)
    requested: int = 0
    stopped_by: Counter[str] = field(default_factory=Counter)
    waves: dict[int, list[float]] = field(default_factory=dict)
    expectations: int = 0
    expected_loss: float = 0.0

    def add(self, record: Record, table: GainTable | None) -> None:
        """Count a prompt, if it was sampled in waves."""
        drawn = [arm.waves for arm in record.arms if arm.waves]
        if not drawn:
            return
        self.prompts += 1
        self.candidates[record.selection.candidates] += 1
        self.requested += record.selection.requested or record.selection.candidates
        self.stopped_by[record.selection.stopped_by or "candidates"] += 1
        if len(record.arms) == 1:
            self._add_waves(drawn[0], record, table)

    def _add_waves(self, drawn: DrawnWaves, record: Record, table: GainTable | None) -> None:
        trace = PromptTrace.of(record.selection)
        k, end = trace.candidates, drawn.start
        for number in range(2, drawn.count + 1):
            further = min(end + drawn.step, k)
            before, after = trace.best(end), trace.best(further)
            sums = self.waves.setdefault(number, [0.0, 0.0, 0.0, 0.0])
            for place, value in enumerate((1.0, before, after - before, (after - before) / max(1, further - end))):
                sums[place] += value
            end = further
        if table and k < drawn.requested:
            self.expectations += 1
            self.expected_loss += table.expected(trace.best(k), k, drawn.requested - k, is_safety=trace.is_safety)

    @property
    def gains(self) -> list[WaveGain]:
        """The gain of each wave after the first."""
        return [
            WaveGain(number, int(count), before / count, growth / count, by_candidate / count)
            for number, (count, before, growth, by_candidate) in sorted(self.waves.items())
        ]


@dataclass(frozen=True, slots=True)
class WaveFindings:
    """All of it. `spent` is what a prompt took in tokens, and `k` in candidates, in a run in waves; else None."""

    fixed: tuple[FixedK, ...]
    stops: tuple[SimulatedStop, ...]
    drawn: DrawnCounts
    spent: Interval | None
    k: Interval | None
    tokens_alike: float | None
    """Of a run in waves: about the tokens for which a fixed K gives the same R_c; None beyond those that are known."""

    @property
    def tokens_of_k(self) -> float | None:
        """About the tokens that all requested candidates would have taken, by the mean of those sampled."""
        if not self.spent or not self.k:
            return None
        return self.spent.value / self.k.value * self.drawn.requested / self.drawn.prompts


def figures(answers: Answers, records: Sequence[Record], table: GainTable | None) -> Figures:
    """Yield the figures of each prompt of one way of sampling."""
    singles = np.array([len(record.arms) == 1 for record in records])
    for prompts, rows in answers.stacks(first=True):
        chosen = singles[prompts]
        yield from _fixed(answers, prompts[chosen], rows[chosen])
    exact = singles & np.array([record.arms[0].waves is None for record in records]) & answers.is_whole
    for prompts, rows in answers.stacks():
        if (chosen := exact[prompts]).any():
            yield from _simulated(answers, prompts[chosen], rows[chosen])
    yield from _drawn(records, table)


def _fixed(answers: Answers, prompts: IntArray, rows: IntArray) -> Figures:
    total = rows.shape[1]
    rewards = answers.reward[rows]
    yield Figure("first_tokens"), prompts, answers.tokens[rows].mean(axis=1)
    for size in shown_sizes(total):
        yield Figure("fixed", size), prompts, rewards @ best_weights(total, size)


def shown_sizes(total: int) -> Sequence[int]:
    """Return the fixed K that are shown up to K = `total`."""
    return range(1, total + 1) if total <= EVERY_SIZE else sizes_up_to(total)


def _simulated(answers: Answers, prompts: IntArray, rows: IntArray) -> Figures:
    """Yield what stopping at each of `STOPS` comes to, averaged over `ORDERS`; `rows` are whole, best first."""
    total = rows.shape[1]
    rewards = answers.reward[rows]
    numbered = np.argsort(answers.index[rows], axis=1, kind="stable")  # the rank of candidate 0, 1, …
    ends = np.array(list(SIZE.ends(total)))
    sums = {(name, at): np.zeros(len(rows)) for name in _STOP for at in STOPS}
    for turn in range(ORDERS):
        ranks = np.roll(numbered, -(turn * total // ORDERS), axis=1)
        tokens = np.cumsum(np.take_along_axis(answers.tokens[rows], ranks, axis=1), axis=1)[:, ends - 1]
        leaders = np.minimum.accumulate(ranks, axis=1)[:, ends - 1]
        reached = np.take_along_axis(rewards, leaders, axis=1)
        may_stop = np.take_along_axis(answers.could_win[rows], leaders, axis=1)
        for at in STOPS:
            stops = (reached >= at) & may_stop
            stops[:, -1] = True
            wave = stops.argmax(axis=1)
            each = np.arange(len(rows))
            reward, stopped = reached[each, wave], wave < len(ends) - 1
            loss = rewards[:, 0] - reward
            values = (reward, tokens[each, wave], ends[wave], stopped, stopped & (loss <= 0), loss)
            for name, value in zip(_STOP, values, strict=True):
                sums[name, at] += value / ORDERS
    for (name, at), value in sums.items():
        yield Figure(f"stop_{name}", _key(at)), prompts, value


def _key(at: float) -> int:
    return round(1000 * at)


def _drawn(records: Sequence[Record], table: GainTable | None) -> Figures:
    """Yield what prompts in waves took, and what a larger K is estimated to have given them."""
    places = np.array([place for place, record in enumerate(records) if record.selection.waves], dtype=np.int64)
    if not len(places):
        return
    selections = [records[place].selection for place in places]
    yield Figure("spent"), places, np.array([float(item.sampled_tokens) for item in selections])
    yield Figure("k"), places, np.array([float(item.candidates) for item in selections])
    found: dict[int, tuple[list[int], list[float]]] = {}
    for place in places.tolist() if table else ():
        (waves, *others), selection = [arm.waves for arm in records[place].arms], records[place].selection
        if others or not waves:
            continue
        assert table
        trace = PromptTrace.of(selection)
        for size in estimated_sizes(waves):
            where, values = found.setdefault(size, ([], []))
            where.append(place)
            values.append(_estimate(trace, size, table))
    for size, (where, values) in found.items():
        yield Figure("estimated", size), np.array(where), np.array(values)


def _estimate(trace: PromptTrace, size: int, table: GainTable) -> float:
    """Return the best R_c of `size` candidates: measured if the prompt has them, else with what the table expects."""
    seen = min(size, trace.candidates)
    best = trace.best(seen)
    return best + (table.expected(best, seen, size - seen, is_safety=trace.is_safety) if seen < size else 0.0)


def estimated_sizes(waves: DrawnWaves) -> list[int]:
    """Return the fixed K beyond the first wave that are estimated, ending in all that were requested."""
    ends = list(Waves(waves.start, waves.step, reward=1.0).ends(waves.requested))[1:]
    every = -(-len(ends) // ESTIMATES) or 1
    return ends[::-1][::every][::-1]


def summed_up(found: dict[Figure, Interval], drawn: DrawnCounts) -> WaveFindings | None:
    """Return the findings from the `found` means of all figures; None if no prompt was sampled in one way."""
    mean = found.get(Figure("first_tokens"))
    if mean is None:
        return None
    fixed = [FixedK(size, item, size * mean.value) for size, item in _of(found, "fixed")]
    fixed += [FixedK(size, item, size * mean.value, is_estimated=True) for size, item in _of(found, "estimated")]
    fixed = sorted({item.size: item for item in reversed(fixed)}.values(), key=lambda item: item.size)
    stops = [stop for at in STOPS if (stop := _stop(found, at, fixed))] if not drawn.prompts else []
    winner = found.get(Figure("winner"))
    alike = tokens_alike(fixed, winner.value) if winner and drawn.prompts else None
    return WaveFindings(tuple(fixed), tuple(stops), drawn, found.get(Figure("spent")), found.get(Figure("k")), alike)


def _of(found: dict[Figure, Interval], name: str) -> list[tuple[int, Interval]]:
    most = max((item.count for figure, item in found.items() if figure.name == name), default=0)
    # A size that only a few prompts have is about other prompts.
    return sorted(
        (figure.size, item) for figure, item in found.items() if figure.name == name and 2 * item.count >= most
    )


def _stop(found: dict[Figure, Interval], at: float, fixed: Sequence[FixedK]) -> SimulatedStop | None:
    def value(name: str) -> float:
        return found[Figure(f"stop_{name}", _key(at))].value

    reward = found.get(Figure("stop_reward", _key(at)))
    if reward is None:
        return None
    stopped = value("stopped")
    kept, loss = (value("kept") / stopped, value("loss") / stopped) if stopped else (1.0, 0.0)
    alike = tokens_alike(fixed, reward.value)
    return SimulatedStop(at, reward, value("tokens"), value("k"), stopped, kept, loss, alike)


def tokens_alike(fixed: Sequence[FixedK], reward: float) -> float | None:
    """Return the tokens for which a fixed K gives this R_c, linear between two sizes; None beyond all of them."""
    for low, high in pairwise(fixed):
        if low.reward.value <= reward <= high.reward.value:
            rise = high.reward.value - low.reward.value
            along = (reward - low.reward.value) / rise if rise > 0 else 0.0
            return low.tokens + along * (high.tokens - low.tokens)
    return None
