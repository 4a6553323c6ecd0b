"""Selections as a response's objects: the `best_of_n` report, usage, ratings, progress; and the log's fields. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from winnow.clients.schema import (
    AbortedCandidate,
    BestOfNReport,
    CompletionTokensDetails,
    Failed,
    ProgressReport,
    Rating,
    Scored,
    TimingsMs,
    Usage,
)
from winnow.clients.schema import Progress as WireProgress
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Branch, Progress, ScoredCandidate, Selection


def progress(now: Progress) -> ProgressReport:
    """Return the event that reports the progress of a selection."""
    return ProgressReport(
        progress=WireProgress(
            finished=now.finished, scored=now.scored, candidates=now.candidates, best_so_far=now.best_so_far
        )
    )


def usage(selection: Selection, prompt_tokens: int, returned: int | None = None) -> Usage:
    """Return the token counts over all candidates, as OpenAI counts for `best_of`; or over the best `returned` ones."""
    completion, winner = selection.sampled_tokens, selection.winner.candidate.tokens
    if returned is not None:
        completion = sum(item.candidate.tokens for item in selection.ranked[:returned])
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion,
        total_tokens=prompt_tokens + completion,
        completion_tokens_details=CompletionTokensDetails(winner_tokens=winner, other_tokens=completion - winner),
    )


def usage_so_far(prompt_tokens: int) -> Usage:
    """Return the token counts while candidates run: those of the prompt."""
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=0, total_tokens=prompt_tokens)


def rating(item: ScoredCandidate, rank: int) -> Rating:
    """Return an answer's rewards and rank; R_h only if it decided, so that null always means "not needed"."""
    reward = item.reward
    return Rating(
        index=item.candidate.index,
        safety=reward.safety,
        helpfulness=reward.helpfulness if reward.branch is Branch.HELPFUL else None,
        combined=reward.combined,
        branch=reward.branch.value,
        empty=item.candidate.is_empty,
        rank=rank,
    )


def report(selection: Selection, *, with_texts: bool, gains: str | None = None) -> BestOfNReport:
    """Return the `best_of_n` object; `with_texts` includes every candidate's text, `gains` names the table used."""
    ranks = {position: rank for rank, position in enumerate(selection.ranking)}
    return BestOfNReport(
        candidates=selection.candidates,
        requested=selection.requested or selection.candidates,
        reduced_by=selection.reduced_by,
        truncated_by=selection.truncated_by,
        approximate=selection.is_approximate,
        finished=len(selection.scored),
        winner=selection.winner.candidate.index,
        is_safety=selection.prompt.is_safety,
        combiner=selection.combiner,
        winner_tokens=selection.winner.candidate.tokens,
        all_unsafe=selection.all_unsafe,
        safe_passed_over=selection.safe_passed_over,
        scored=[_scored(item, ranks[position], with_texts) for position, item in enumerate(selection.scored)],
        failed=[Failed(index=failure.index, reason=failure.reason) for failure in selection.failures],
        aborted=[
            AbortedCandidate(index=item.index, reason=item.reason, tokens=item.tokens) for item in selection.aborted
        ],
        timings_ms=timings(selection),
        waves=selection.waves,
        stopped_by=selection.stopped_by,
        requested_tokens=selection.requested_tokens if selection.waves else None,
        gains=gains,
    )


def _scored(item: ScoredCandidate, rank: int, with_text: bool) -> Scored:
    return Scored(
        **rating(item, rank).model_dump(),
        finish_reason=item.candidate.finish_reason,
        tokens=item.candidate.tokens,
        text=item.candidate.text if with_text else None,
    )


def timings(selection: Selection) -> TimingsMs:
    """Return the timings in milliseconds, to the microsecond."""
    return TimingsMs(**{phase: round(seconds * 1e3, 3) for phase, seconds in asdict(selection.timings).items()})


def server_timing(selection: Selection) -> str:
    """Return the timings as a `Server-Timing` header (W3C), which browsers show in their network tab."""
    return ", ".join(f"{name};dur={value}" for name, value in timings(selection).model_dump().items())


def log_fields(selection: Selection) -> dict[str, Any]:
    """Return a selection's fields of the access log: numbers and names, never text."""
    return {
        "candidates": selection.candidates,
        "requested": selection.requested or selection.candidates,
        "reduced_by": selection.reduced_by,
        "truncated_by": selection.truncated_by,
        **({"waves": selection.waves, "stopped_by": selection.stopped_by} if selection.waves else {}),
        "failed": len(selection.failures),
        "aborted": len(selection.aborted),
        "prompt_tokens": selection.prompt_tokens,
        "sampled_tokens": selection.sampled_tokens,
        "winner": selection.winner.candidate.index,
        "branch": selection.winner.reward.branch.value,
        "reward": round(selection.winner.reward.combined, 4),
        "all_unsafe": selection.all_unsafe,
        **{f"{name}_ms": value for name, value in timings(selection).model_dump().items()},
    }


def log_content(selection: Selection, tokenizer: Tokenizer, refusal: str | None) -> dict[str, Any]:
    """Return prompt and answer, or the `refusal` in its place, for operators who log content."""
    return {
        "prompt": tokenizer.decode(selection.prompt.token_ids),
        "answer": selection.winner.candidate.text if refusal is None else refusal,
    }
