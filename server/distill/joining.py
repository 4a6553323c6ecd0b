"""Records from outcomes: the arms of a prompt, or its waves, joined to one selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

from winnow.models.combiner import rank
from winnow.models.errors import NoScoredCandidate
from winnow.models.types import Failure, ScoredCandidate, Selection, Timings
from winnow.server.distill.backends.base import Answered
from winnow.server.distill.plans import Plan, further_wave
from winnow.server.distill.records import Arm, DrawnWaves, Record
from winnow.server.pipeline.request import Request

Outcome = Answered | NoScoredCandidate


def record_of(plan: Plan, outcomes: Sequence[Outcome]) -> Record:
    """Return the record of a line whose arms have these outcomes; at least one is a selection."""
    arms = tuple(map(_sampled, plan.arms, plan.requests, outcomes))
    answered = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
    record = Record(
        line=plan.task.line,
        id=plan.task.id,
        digest=plan.task.digest,
        category=plan.task.category,
        mask_history=plan.mask_history,
        n=plan.requests[0].n,
        arms=arms,
        prompt_tokens=max(outcome.prompt_tokens for outcome in answered),
        selection=replace(
            _joined([(arm.candidates, outcome) for arm, outcome in zip(arms, outcomes, strict=True)]),
            timings=_longest([outcome.selection.timings for outcome in answered]),
            requested=sum(request.requested for request in plan.requests),
            reduced_by="temperature" if any(request.is_reduced for request in plan.requests) else None,
        ),
    )
    return _with_waves(record)


def _with_waves(record: Record) -> Record:
    """Return the record with its arms' waves in its selection: the most of any, and what ended the winner's."""
    counts = [arm.waves.count for arm in record.arms if arm.waves]
    if not counts:
        return record
    own = record.arm_of(record.selection.winner.candidate).waves
    stopped_by = own.stopped_by if own else None
    return replace(record, selection=replace(record.selection, waves=max(counts), stopped_by=stopped_by))


def continued(record: Record, further: Outcome, candidates: int) -> Record:
    """Return the record of a prompt of one arm with one more wave, of so many `candidates`."""
    (arm,) = record.arms
    assert arm.waves
    before, total = record.selection, arm.candidates + candidates
    joined = _joined([(arm.candidates, Answered(before, record.prompt_tokens)), (candidates, further)])
    spent = [before.timings, *([further.selection.timings] if isinstance(further, Answered) else [])]
    return _with_waves(
        replace(
            record,
            arms=(replace(arm, candidates=total, waves=further_wave(arm.waves, total)),),
            selection=replace(joined, timings=Timings(*map(sum, zip(*map(astuple, spent), strict=True)))),
        )
    )


def _sampled(arm: Arm, request: Request, outcome: Outcome) -> Arm:
    """Return the arm with what was sampled of it: waves may have ended before all of its candidates."""
    if request.waves is None:
        return arm
    if isinstance(outcome, NoScoredCandidate):
        return replace(arm, candidates=len(outcome.failures) or arm.candidates)
    selection, sizes = outcome.selection, request.waves
    assert selection.waves
    assert selection.stopped_by
    waves = DrawnWaves(arm.candidates, sizes.start, sizes.step, selection.waves, selection.stopped_by)
    return replace(arm, candidates=selection.candidates, waves=waves)


def _joined(parts: Sequence[tuple[int, Outcome]]) -> Selection:
    """Return the candidates of several parts as one selection: numbered consecutively, and ranked together.

    A part is its number of candidates and its outcome; at least one outcome is a selection.
    """
    scored: list[ScoredCandidate] = []
    failures: list[Failure] = []
    selections: list[Selection] = []
    first = 0
    for candidates, outcome in parts:
        if isinstance(outcome, Answered):
            selections.append(outcome.selection)
            for item in outcome.selection.scored:
                candidate = replace(item.candidate, index=first + item.candidate.index)
                scored.append(replace(item, candidate=candidate))
        part_failures = outcome.selection.failures if isinstance(outcome, Answered) else outcome.failures
        failures += (replace(failure, index=first + failure.index) for failure in part_failures)
        first += candidates
    return replace(
        selections[0],
        scored=tuple(scored),
        ranking=rank(scored, selections[0].combiner, empty_last=selections[0].empty_last),
        failures=tuple(failures),
        aborted=(),
    )


def _longest(timings: Sequence[Timings]) -> Timings:
    """Return the longest time of each phase: the arms ran at once."""
    return Timings(*map(max, zip(*map(astuple, timings), strict=True)))
