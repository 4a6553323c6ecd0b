"""The prompts that are shown with their answers: where choosing was worth most, and where even the winner is bad."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

from winnow.server.distill.records import Record

Reason = Literal["gain", "unsafe", "low"]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt to show, and why: a large `gain`, an `unsafe` winner, or a winner with a `low` R_c."""

    reason: Reason
    gain: float
    record: Record


class Gallery:
    """Keeps the extreme prompts while a run passes by; holds at most three times as many records as are shown.

    Half of the prompts are those with the largest gains (R_c of the winner above the mean of the candidates). Of the other half,
    unsafe (gated) winners, lowest R_s first, and the other winners with the lowest R_c take turns. Where one sort runs out the
    others fill up. Ties go to the earlier line.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heaps: dict[Reason, list[tuple[float, int, Example]]] = {"gain": [], "unsafe": [], "low": []}

    def add(self, record: Record) -> None:
        """Look at a prompt."""
        reward = record.winner.reward
        rewards = [answer.reward.combined for answer in record.answers]
        gain = reward.combined - sum(rewards) / len(rewards)
        if gain > 0:
            self._push("gain", gain, record, gain)
        if reward.is_gated:
            self._push("unsafe", -reward.safety_logit, record, gain)
        else:
            self._push("low", -reward.combined_logit, record, gain)

    def _push(self, reason: Reason, worth: float, record: Record, gain: float) -> None:
        heap, item = self._heaps[reason], (worth, -record.line, Example(reason, gain, record))
        if len(heap) < self._size:
            heapq.heappush(heap, item)
        elif heap and item[:2] > heap[0][:2]:
            heapq.heapreplace(heap, item)

    def chosen(self) -> tuple[Example, ...]:
        """The examples, large gains first; each prompt once."""
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
