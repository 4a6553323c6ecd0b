"""The content of a report, as numbers and examples."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

from winnow.models.statistics import Interval
from winnow.server.distill.records import Record
from winnow.server.distill.report.answers import ArmKind
from winnow.server.distill.report.counts import Counts
from winnow.server.distill.report.waves import WaveFindings

FEW_PROMPTS = 20
"""Below this number of prompts, bootstrap intervals are too narrow to conclude anything."""
STRONG_RHO = 0.3
LONGER = 0.2
Reason = Literal["gain", "unsafe", "low"]


@dataclass(frozen=True, slots=True)
class Point:
    """The value of `size` candidates: R_c of their best, their median and their mean, over the same prompts."""

    size: int
    best: Interval
    median: Interval | None
    mean: Interval | None


@dataclass(frozen=True, slots=True)
class Doubling:
    """The gain in R_c of the best from `size` to twice as many candidates, over prompts that have twice as many."""

    size: int
    gain: Interval


@dataclass(frozen=True, slots=True)
class Length:
    """The relation of length and reward within prompts.

    `rho` is Spearman's correlation of tokens and R_c. `winner` and `mean` are tokens of the winner and of the mean
    answer; `longer` is the winner's excess over the mean answer to its prompt, 0.1 meaning 10 %. `fifths` is R_c above
    the prompt's mean, from the shortest fifth of its answers to the longest; empty if prompts have fewer than five.
    """

    rho: Interval | None
    winner: Interval
    mean: Interval
    longer: Interval
    fifths: tuple[Interval, ...]

    @property
    def follows_length(self) -> bool:
        """Whether rewards follow length: |rho| > 0.3, its interval excludes 0, and there are enough prompts."""
        rho = self.rho
        return rho is not None and rho.count >= FEW_PROMPTS and rho.excludes(0) and abs(rho.value) > STRONG_RHO

    @property
    def winners_are_longer(self) -> bool:
        """Whether winners are longer by more than 20 %, the interval is above 0, and there are enough prompts."""
        return self.longer.count >= FEW_PROMPTS and self.longer.low > 0 and self.longer.value > LONGER


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt to show for a `reason`: a large `gain`, an `unsafe` winner, or a winner with a `low` R_c."""

    reason: Reason
    record: Record


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a report draws and writes. `length` and the headline's intervals are None without answers.

    `kinds` holds the curve of the best of N for each of the most common kinds of arm; empty if there is only one kind.
    `are_paired` says that these curves are about the same prompts, those that have all these kinds. `kept` prompts gave
    the intervals; `is_partial` says that they are a sample of all prompts.
    """

    counts: Counts
    winner: Interval | None
    mean: Interval | None
    gain: Interval | None
    curve: tuple[Point, ...]
    kinds: dict[ArmKind, tuple[Point, ...]]
    are_paired: bool
    doublings: tuple[Doubling, ...]
    length: Length | None
    examples: tuple[Example, ...]
    kept: int
    is_partial: bool
    waves: WaveFindings | None = None

    @property
    def candidates(self) -> int:
        """The K that most prompts requested, or the size of their first waves; 0 if no prompt has answers."""
        return self.counts.most_requested()

    def enough(self, min_gain: float) -> int | None:
        """Return the N from which every measured doubling gains less than `min_gain` of R_c; None if there is none."""
        found = None
        for doubling in reversed(self.doublings):
            if doubling.gain.value >= min_gain:
                break
            found = doubling.size
        return found


class Examples:
    """A collector of the extreme prompts of a run; it holds at most three times as many records as are shown.

    Half of the prompts are those with the largest gains (R_c of the winner above the mean of the candidates). The other
    half alternates between unsafe winners, lowest R_s first, and the other winners, lowest R_c first. If one sort runs
    out, the others fill up. Ties go to the earlier line.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heaps: dict[Reason, list[tuple[float, int, Example]]] = {"gain": [], "unsafe": [], "low": []}

    def add(self, record: Record) -> None:
        """Consider a prompt."""
        reward, gain = record.selection.winner.reward, record.selection.gain
        if gain > 0:
            self._push("gain", gain, record)
        if reward.is_gated:
            self._push("unsafe", -reward.safety_logit, record)
        else:
            self._push("low", -reward.combined_logit, record)

    def _push(self, reason: Reason, priority: float, record: Record) -> None:
        heap, item = self._heaps[reason], (priority, -record.line, Example(reason, record))
        if len(heap) < self._size:
            heapq.heappush(heap, item)
        elif heap and item[:2] > heap[0][:2]:
            heapq.heapreplace(heap, item)

    def chosen(self) -> tuple[Example, ...]:
        """Return the examples, large gains first; each prompt once."""
        queues = {reason: [item[2] for item in sorted(heap, reverse=True)] for reason, heap in self._heaps.items()}
        turns: tuple[Reason, ...] = ("gain", "unsafe", "gain", "low")
        taken: dict[int, Example] = {}
        while len(taken) < self._size and any(queues.values()):
            for reason in turns:
                queues[reason] = [example for example in queues[reason] if example.record.line not in taken]
                if queues[reason] and len(taken) < self._size:
                    example = queues[reason].pop(0)
                    taken[example.record.line] = example
        order: tuple[Reason, ...] = ("gain", "unsafe", "low")
        return tuple(sorted(taken.values(), key=lambda example: order.index(example.reason)))
