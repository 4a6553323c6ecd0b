"""The expected gain of further candidates, learnt from prompts whose candidates are known: what a wave is worth."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from winnow.models import gain_sums
from winnow.models.errors import GainsError
from winnow.models.gain_sums import KNOTS, LACKS, RATES, SEEN, STEPS, FloatArray
from winnow.models.types import ScoredCandidate, Selection

FORMAT = 1
ADVICE = (
    "make one with these models: `winnow distill PROMPTS --out RUN -k 16`, or `winnow report RUN` of a run there is"
)
_BATCH = 4096
_DIGITS = 6
_CLASSES = ("other", "safety")
_BESTS = (*RATES.tolist(), 1.0)


@dataclass(frozen=True, slots=True)
class Trace:
    """The rewards of one prompt's candidates in the order of their numbers: R_c, in [0, 1]; None for a candidate that
    failed, is empty, or could not win.

    `waves` is None where the number of candidates does not depend on their rewards. Where they were drawn in waves
    that the rewards ended, it is the sizes of the first wave and of the later ones.
    """

    rewards: Sequence[float | None]
    is_safety: bool
    waves: tuple[int, int] | None = None


def trace_of(selection: Selection, waves: tuple[int, int] | None = None) -> Trace | None:
    """Return the trace of a selection that drew in `waves`, or all at once; None where it tells nothing.

    A selection that a deadline, `accept_reward` or early rejection has cut short tells nothing: which candidates it
    lacks depends on the others' rewards and on the time they took. Those that waves had begun for nothing are left out.
    """
    cut = selection.truncated_by or any(item.reason != "adaptive" for item in selection.aborted)
    if cut or (selection.stopped_by is not None and waves is None):
        return None
    rewards: dict[int, float | None] = {failure.index: None for failure in selection.failures}
    rewards |= {item.candidate.index: _reward(item, selection) for item in selection.scored}
    return Trace([rewards[index] for index in sorted(rewards)], selection.prompt.is_safety, waves)


def _reward(item: ScoredCandidate, selection: Selection) -> float | None:
    return item.reward.combined if could_win(item, selection) else None


def could_win(item: ScoredCandidate, selection: Selection) -> bool:
    """Whether a candidate may be one to stop at: it has text, if that counts, and under `safe_first` is not unsafe."""
    is_last = selection.empty_last and item.candidate.is_empty
    return not is_last and not (selection.combiner == "safe_first" and item.reward.is_gated)


@dataclass(frozen=True, slots=True)
class GainTable:
    """The worth of further candidates, for the models of one fingerprint.

    It holds sums over `prompts` prompts with `candidates` candidates, made on `date` (YYYY-MM-DD), to which more can be
    added; see `winnow.models.gain_sums`. Equal traces in equal order give equal tables, whatever the date.
    """

    fingerprint: str
    prompts: int
    candidates: int
    date: str | None
    sums: tuple[float, ...] = field(repr=False)
    _gains: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_gains", gain_sums.gains(_array(self.sums)))

    @classmethod
    def learn(
        cls, fingerprint: str, traces: Iterable[Trace], *, date: str | None = None, onto: GainTable | None = None
    ) -> Self:
        """Return the table of `traces`, and of what the table `onto` knows, which is of the same models.

        A prompt whose number of candidates does not depend on their rewards counts with all orders of them: exactly,
        as if it had been met in each. One that waves have drawn is no such sample, because the waves end where a
        candidate is good: a long trace is one of a poor prompt, and its last candidates are better than its first.
        Of it count the first wave, with all orders, and each later wave of full size, in the order it was drawn. That
        leaves no choice by the outcome: whether a wave was drawn depends on the state before it alone, of which the
        table is a function. As the bound at which waves stop does not rise from one to the next, every prompt in a
        state below it has come through its earlier waves.
        """
        if onto is not None and onto.fingerprint != fingerprint:
            raise ValueError("tables of different models cannot be added")
        sums = _array(onto.sums) if onto else gain_sums.empty()
        prompts, candidates = (onto.prompts, onto.candidates) if onto else (0, 0)
        source = iter(traces)
        while batch := list(islice(source, _BATCH)):
            _add(sums, batch)
            prompts += len(batch)
            candidates += sum(len(trace.rewards) for trace in batch)
        rounded = tuple(round(value, _DIGITS) for value in sums.ravel().tolist())
        return cls(fingerprint, prompts, candidates, date, rounded)

    def expected(self, best: float, seen: int, step: int, *, is_safety: bool) -> float:
        """Return the expected growth of the best R_c, which is `best` after `seen` candidates, by `step` more.

        It is at least 0, and 0 where `best` is 1. It does not increase with `best` or `seen`, nor decrease with `step`.
        """
        gains = self._gains[int(is_safety)]
        found = sum(
            row_part * column_part * _at(gains[row, column], best)
            for row, row_part in _between(SEEN, seen)
            for column, column_part in _between(STEPS, step)
        )
        # Beyond the grid the shares stay, and their chances to be the best go on: step / (seen + step).
        inside_seen, inside_step = min(seen, SEEN[-1]), min(step, STEPS[-1])
        beyond = (step / (seen + step)) / (inside_step / (inside_seen + inside_step))
        return min(max(found * beyond, 0.0), max(1 - best, 0.0))

    @property
    def knows(self) -> bool:
        """Whether any prompt had two candidates."""
        return any(self.sums)

    @property
    def digest(self) -> str:
        """The SHA-256 of what it knows: of everything but the date."""
        return hashlib.sha256(json.dumps(self._body()).encode()).hexdigest()

    def _body(self) -> dict[str, Any]:
        sums = _array(self.sums)
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "prompts": self.prompts,
            "candidates": self.candidates,
            "knots": KNOTS.tolist(),
            "states": [
                {
                    "class": _CLASSES[kind],
                    "seen": SEEN[row],
                    "step": STEPS[column],
                    "sums": sums[kind, :, row, column].tolist(),
                }
                for kind, row, column in np.ndindex(2, len(SEEN), len(STEPS))
                if sums[kind, 0, row, column].any()
            ],
        }

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            GainsError: it cannot be written.
        """
        body = {"winnow_gains": FORMAT, "date": self.date, "digest": self.digest, **self._body()}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(_lines(body))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise GainsError(f"{path} cannot be written: {error.strerror or error}") from None

    @classmethod
    def read(cls, path: Path, fingerprint: str | None = None) -> Self:
        """Return the table that `write` wrote, which must be of the models of `fingerprint` if that is given.

        Raises:
            GainsError: there is none, it is damaged, or of other models.
        """
        try:
            body = json.loads(path.read_bytes())
        except OSError as error:
            raise GainsError(f"{path} cannot be read: {error.strerror}; {ADVICE}") from None
        except (ValueError, RecursionError):
            raise GainsError(f"{path} is no table of gains: it is not JSON; {ADVICE}") from None
        if not isinstance(body, dict) or "winnow_gains" not in body:
            raise GainsError(f"{path} is no table of gains; {ADVICE}")
        if body["winnow_gains"] != FORMAT:
            raise GainsError(f"{path} has format {body['winnow_gains']}, this version reads {FORMAT}; {ADVICE}")
        table = cls._of(body)
        if table is None:
            raise GainsError(f"{path} is damaged; delete it, and {ADVICE}")
        if fingerprint is not None and table.fingerprint != fingerprint:
            raise GainsError(f"{path} was made with other models, or another calibration or template; {ADVICE}")
        return table

    @classmethod
    def _of(cls, body: Mapping[str, Any]) -> Self | None:
        """Return the table of a file, or None if its content is not what its digest says."""
        try:
            sums = gain_sums.empty()
            for state in body["states"]:
                place = _CLASSES.index(state["class"]), SEEN.index(state["seen"]), STEPS.index(state["step"])
                sums[place[0], :, place[1], place[2]] = state["sums"]
            counts = int(body["prompts"]), int(body["candidates"])
            table = cls(str(body["fingerprint"]), *counts, body["date"], tuple(sums.ravel().tolist()))
            is_whole = table.digest == body["digest"] and isinstance(table.date, str | None)
            return table if is_whole else None
        except (KeyError, ValueError, TypeError, IndexError):
            return None


def _lines(body: Mapping[str, Any]) -> str:
    """Return JSON with a line for each entry and for each state."""
    entries = []
    for key, value in body.items():
        if key == "states":
            shown = "[" + ",".join("\n " + json.dumps(state) for state in value) + "\n]"
        else:
            shown = json.dumps(value)
        entries.append(f"{json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _array(sums: Sequence[float]) -> FloatArray:
    return np.array(sums).reshape(gain_sums.SHAPE)


def _add(sums: FloatArray, traces: Sequence[Trace]) -> None:
    wholes: dict[tuple[bool, int], list[FloatArray]] = defaultdict(list)
    for trace in traces:
        rewards = np.array([LACKS if reward is None else reward for reward in trace.rewards], dtype=np.float64)
        first, step = trace.waves or (len(rewards), 1)
        wholes[trace.is_safety, min(first, len(rewards))].append(rewards[:first])
        for end in range(first, len(rewards) - step + 1, step):
            gain_sums.add_wave(sums[int(trace.is_safety)], rewards[:end], rewards[end : end + step])
    for (is_safety, _), group in sorted(wholes.items(), key=lambda item: item[0]):
        gain_sums.add_whole(sums[int(is_safety)], np.stack(group))


def _between(grid: Sequence[int], value: int) -> Iterator[tuple[int, float]]:
    """Yield the positions around `value` in `grid` with their parts, which sum to 1."""
    above = bisect_right(grid, value)
    if above in (0, len(grid)):
        yield min(above, len(grid) - 1), 1.0
        return
    along = (value - grid[above - 1]) / (grid[above] - grid[above - 1])
    yield above - 1, 1 - along
    if along:
        yield above, along


def _at(gains: FloatArray, best: float) -> float:
    """Return the gain at `best`, linear between the knots, constant below the first, 0 at 1."""
    if math.isnan(best) or best >= 1:
        return 0.0
    above = bisect_right(_BESTS, best)
    if not above:
        return float(gains[0])
    low: float = _BESTS[above - 1]
    high: float = _BESTS[above]
    left = float(gains[above - 1])
    right = float(gains[above]) if above < len(gains) else 0.0
    return left + (right - left) * (best - low) / (high - low)
