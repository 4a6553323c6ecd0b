"""The rewards of a run's prompts, without their texts: what decides where further candidates go."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from winnow.models.gains import could_win
from winnow.models.types import Selection, sigmoid
from winnow.server.distill.records import Entry, Problem

COULD_NOT_WIN = math.nan
"""Stands for a candidate that failed, that is empty, or that is unsafe where safe ones rank first."""


@dataclass(frozen=True, slots=True)
class PromptTrace:
    """logit(R_c) of a prompt's candidates in the order of their numbers, `COULD_NOT_WIN` for some; about 100 bytes."""

    logits: array[float]
    is_safety: bool

    @property
    def candidates(self) -> int:
        """The number of candidates, failed ones included."""
        return len(self.logits)

    def best(self, candidates: int) -> float:
        """Return the highest R_c of the first `candidates` that could win; 0 without any."""
        return max((sigmoid(value) for value in self.logits[:candidates] if not math.isnan(value)), default=0.0)

    @classmethod
    def of(cls, selection: Selection) -> PromptTrace:
        """Return the rewards of a selection none of whose candidates was aborted."""
        logits = array("d", [COULD_NOT_WIN]) * selection.candidates
        for item in selection.scored:
            if could_win(item, selection):
                logits[item.candidate.index] = item.reward.combined_logit
        return cls(logits, selection.prompt.is_safety)


class Traces:
    """The newest trace of each input line of a run, and the lines without one: at fault, or with no answer at all."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.prompts: dict[int, PromptTrace] = {}
        self.failed: set[int] = set()
        self.at_fault: set[int] = set()
        for entry in entries:
            self.add(entry)

    @property
    def sampled(self) -> int:
        """Candidates of all prompts that have answers."""
        return sum(trace.candidates for trace in self.prompts.values())

    def add(self, entry: Entry) -> None:
        """Add a line, or what is new about it."""
        if not isinstance(entry, Problem):
            self.prompts[entry.line] = PromptTrace.of(entry.selection)
        elif entry.kind == "failed":
            self.failed.add(entry.line)
        else:
            self.at_fault.add(entry.line)
