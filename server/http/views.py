"""Selections as wire bodies. Pure functions; what is derived here is stored nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from winnow.clients.wire import (
    AnswerMessage,
    BestOfNReport,
    Choice,
    Failed,
    Rating,
    Scored,
    TimingsMs,
    Usage,
)
from winnow.models.types import Branch, Reward, ScoredCandidate, Selection


def choices(selection: Selection, n: int) -> list[Choice]:
    """The best `n` answers as choices; index 0 is the winner."""
    return [
        Choice(
            index=index, message=AnswerMessage(content=item.candidate.text), finish_reason=item.candidate.finish_reason
        )
        for index, item in enumerate(selection.ranked[:n])
    ]


def usage(selection: Selection) -> Usage:
    """Token counts, over all candidates as OpenAI does for `best_of`."""
    prompt, completion = len(selection.prompt), selection.sampled_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def rating(index: int, reward: Reward) -> Rating:
    """One answer's rewards; R_h only where it decided, so that null always means "not needed"."""
    return Rating(
        index=index,
        safety=reward.safety,
        helpfulness=reward.helpfulness if reward.branch is Branch.HELPFUL else None,
        combined=reward.combined,
        branch=reward.branch.value,
    )


def report(selection: Selection, *, with_texts: bool) -> BestOfNReport:
    """The `best_of_n` object; `with_texts` puts every candidate's text in."""
    ranks = {position: rank for rank, position in enumerate(selection.ranking)}
    return BestOfNReport(
        candidates=selection.requested,
        finished=len(selection.scored),
        winner=selection.winner.candidate.index,
        is_safety=selection.prompt.is_safety,
        combiner=selection.combiner,
        winner_tokens=selection.winner.candidate.tokens,
        scored=[_scored(item, ranks[position], with_texts) for position, item in enumerate(selection.scored)],
        failed=[Failed(index=failure.index, reason=failure.reason) for failure in selection.failures],
        timings_ms=timings(selection),
    )


def _scored(item: ScoredCandidate, rank: int, with_text: bool) -> Scored:
    return Scored(
        **rating(item.candidate.index, item.reward).model_dump(),
        rank=rank,
        finish_reason=item.candidate.finish_reason,
        tokens=item.candidate.tokens,
        text=item.candidate.text if with_text else None,
    )


def timings(selection: Selection) -> TimingsMs:
    """The timings in milliseconds, to the microsecond."""
    spans = selection.timings
    return TimingsMs(
        queue=round(spans.queue * 1e3, 3),
        first_candidate=round(spans.first_candidate * 1e3, 3),
        generate=round(spans.generate * 1e3, 3),
        score_tail=round(spans.score_tail * 1e3, 3),
        total=round(spans.total * 1e3, 3),
    )


def server_timing(selection: Selection) -> str:
    """The timings as a `Server-Timing` header (W3C), for the network tab of a browser."""
    return ", ".join(f"{name};dur={value}" for name, value in timings(selection).model_dump().items())


def pieces(text: str, size: int = 24) -> Sequence[str]:
    """Cut `text` into at least two pieces of about `size` characters, for the content chunks of a stream."""
    step = max(1, min(size, -(-len(text) // 2)))
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    return parts if len(parts) > 1 else [text, ""]
