"""The table of expected gains that a run teaches: `gains.json`, which a server with the same models reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from winnow.models.gains import GainTable, Trace, trace_of
from winnow.models.types import Selection
from winnow.server.distill import journal, manifest
from winnow.server.distill.records import Record
from winnow.server.model_identity import fingerprint_of

NAME = "gains.json"
FEW_PROMPTS = 100
"""With fewer prompts a table is close to what it would say without any."""


def write_gains(run: Path, out: Path | None = None) -> GainTable | None:
    """Write `gains.json` of a run into its folder, or into `out`, and return the table; None if there is none.

    A run on a server has none, because a server does not tell what its models are, nor has one in which no prompt has
    two candidates. The table's date is the day of the journal's last entry: equal journals of one day give equal bytes.

    Raises:
        RunError: `run` holds no run.
        GainsError: the file cannot be written.
    """
    table = learnt_from(run)
    if table is None or not table.fingerprint:
        return None
    table.write((out or run) / NAME)
    return table


def learnt_from(run: Path) -> GainTable | None:
    """Return the table that a run teaches, without a fingerprint if the run was on a server; None if it tells nothing.

    Raises:
        RunError: `run` holds no run.
    """
    began = manifest.load(run)
    settings = began.get("settings", {})
    models = fingerprint_of(began.get("models", {}), settings) or ""
    date = datetime.fromtimestamp((run / journal.NAME).stat().st_mtime, UTC).date().isoformat()
    table = GainTable.learn(models, traces(run, settings), date=date)
    return table if table.knows else None


def traces(run: Path, settings: Mapping[str, Any]) -> Iterator[Trace]:
    """Yield the traces of a run with these manifest's `settings`, in the order of its input.

    Candidates after a preprompt are left out: a server samples none. Of a run with a budget count the first waves,
    because the further ones went to prompts that were chosen by more than their best rewards.
    """
    for entry in journal.read(run):
        if isinstance(entry, Record) and (trace := traced(entry, is_budgeted="budget" in settings)):
            yield trace


def traced(record: Record, *, is_budgeted: bool) -> Trace | None:
    """Return the trace of a prompt; None if it tells nothing."""
    (waves, *others) = [arm.waves for arm in record.arms]
    if not any((waves, *others)):
        return trace_of(_without_preprompt(record))
    if others or not waves:
        return None  # each arm has waves of its own
    trace = trace_of(record.selection, (waves.start, waves.step))
    if trace and is_budgeted:
        return replace(trace, rewards=trace.rewards[: waves.start], waves=None)
    return trace


def _without_preprompt(record: Record) -> Selection:
    places, first = set[int](), 0
    for arm in record.arms:
        if not arm.is_context_distilled:
            places.update(range(first, first + arm.candidates))
        first += arm.candidates
    chosen = record.selection
    return replace(
        chosen,
        scored=tuple(item for item in chosen.scored if item.candidate.index in places),
        failures=tuple(item for item in chosen.failures if item.index in places),
    )


def remark(table: GainTable) -> str:
    """Return a sentence on what the file is, for the terminal."""
    few = f", few: {FEW_PROMPTS} or more tell" if table.prompts < FEW_PROMPTS else ""
    return f"what further candidates gain, learnt from {table.prompts:,} prompts{few}; for --adaptive gain=…"
