"""Selections as wire bodies. Pure functions; what is derived here is stored nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from winnow.clients.schema import (
    AbortedCandidate,
    BestOfNReport,
    ChatLogprobs,
    Failed,
    FinishReason,
    ProgressReport,
    Rating,
    SampledLogprob,
    Scored,
    TextLogprobs,
    TimingsMs,
    Usage,
)
from winnow.clients.schema import Progress as WireProgress
from winnow.clients.schema import TokenLogprob as WireLogprob
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.types import Branch, Progress, Reward, ScoredCandidate, Selection, TokenLogprob
from winnow.server.pipeline.admission import Ticket


class Returned(NamedTuple):
    """One answer as the client gets it; `logprobs` None if not asked for, or if it is a refusal."""

    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None
    has_dummy_space: bool = False
    """Whether the first token's leading space is the tokenizer's own, and no part of the text."""


def returned(selection: Selection, n: int, refusal: str | None) -> list[Returned]:
    """The best `n` answers, the winner first; or `refusal` in the place of each."""
    if refusal is not None:
        return [Returned(refusal, "content_filter")] * min(n, len(selection.scored))
    best = [item.candidate for item in selection.ranked[:n]]
    dummy = not selection.prompt.is_raw
    return [Returned(candidate.text, candidate.finish_reason, candidate.logprobs, dummy) for candidate in best]


class _Spelt(NamedTuple):
    """A sampled token with its bytes, and those of the alternatives at its place."""

    token: TokenLogprob
    piece: bytes
    alternatives: tuple[bytes, ...]


def _spelt(answer: Returned, template: Llama2Template) -> list[_Spelt]:
    """The tokens that the text holds: no control ids, nothing behind a stop string, no dummy space."""
    spelt: list[_Spelt] = []
    size, start = len(answer.text.encode()), 0
    for place, token in enumerate(answer.logprobs or ()):
        dummy = b" " if place == 0 and answer.has_dummy_space else b""
        piece = template.token_bytes(token.token_id).removeprefix(dummy)
        if start < size and token.token_id not in template.control_ids:
            alternatives = tuple(template.token_bytes(token_id).removeprefix(dummy) for token_id, _ in token.top)
            spelt.append(_Spelt(token, piece, alternatives))
        start += len(piece)
    return spelt


def _shown(piece: bytes, token_id: int, template: Llama2Template) -> str:
    return piece.decode(errors="replace") or template.token_name(token_id)


def chat_logprobs(answer: Returned, template: Llama2Template) -> ChatLogprobs | None:
    """The log-probabilities as chat completions have them."""
    if answer.logprobs is None:
        return None
    return ChatLogprobs(
        content=[
            SampledLogprob(
                token=_shown(piece, token.token_id, template),
                logprob=token.logprob,
                bytes=list(piece),
                top_logprobs=[
                    WireLogprob(token=_shown(other, token_id, template), logprob=logprob, bytes=list(other))
                    for (token_id, logprob), other in zip(token.top, alternatives, strict=True)
                ],
            )
            for token, piece, alternatives in _spelt(answer, template)
        ]
    )


def text_logprobs(answer: Returned, template: Llama2Template) -> TextLogprobs | None:
    """The same as text completions have them; of alternatives that look alike the likeliest is shown."""
    content = chat_logprobs(answer, template)
    if content is None:
        return None
    starts = list(accumulate((bytes(item.bytes or ()) for item in content.content), initial=b""))
    return TextLogprobs(
        tokens=[item.token for item in content.content],
        token_logprobs=[item.logprob for item in content.content],
        top_logprobs=[{top.token: top.logprob for top in reversed(item.top_logprobs)} for item in content.content],
        text_offset=[len(start.decode(errors="ignore")) for start in starts[:-1]],
    )


def progress(now: Progress) -> ProgressReport:
    """How far a selection has come."""
    return ProgressReport(
        progress=WireProgress(
            finished=now.finished, scored=now.scored, candidates=now.candidates, best_so_far=now.best_so_far
        )
    )


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


def report(selection: Selection, ticket: Ticket | None = None, *, with_texts: bool) -> BestOfNReport:
    """The `best_of_n` object; `ticket` knows how many candidates were asked for, `with_texts` puts every candidate's text in."""
    ranks = {position: rank for rank, position in enumerate(selection.ranking)}
    return BestOfNReport(
        candidates=selection.requested,
        requested=ticket.asked if ticket else selection.requested,
        reduced_by=ticket.reduced_by if ticket else None,
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


def log_fields(selection: Selection, ticket: Ticket) -> dict[str, Any]:
    """What the access log says of a selection: numbers and names, never text."""
    return {
        "candidates": selection.requested,
        "requested": ticket.asked,
        "reduced_by": ticket.reduced_by,
        "truncated_by": selection.truncated_by,
        "failed": len(selection.failures),
        "aborted": len(selection.aborted),
        "prompt_tokens": len(selection.prompt),
        "sampled_tokens": selection.sampled_tokens,
        "winner": selection.winner.candidate.index,
        "branch": selection.winner.reward.branch.value,
        "reward": round(selection.winner.reward.combined, 4),
        "all_unsafe": selection.all_unsafe,
        **{f"{name}_ms": value for name, value in timings(selection).model_dump().items()},
    }


def log_content(selection: Selection, template: Llama2Template, refusal: str | None) -> dict[str, Any]:
    """What was asked and answered, a `refusal` if that is what was; only for operators who want it in their logs."""
    return {
        "prompt": str(template.tokenizer.decode(selection.prompt.token_ids)),
        "answer": selection.winner.candidate.text if refusal is None else refusal,
    }


def pieces(text: str, size: int = 24) -> Sequence[str]:
    """Cut `text` into at least two pieces of about `size` characters, for the content chunks of a stream."""
    step = max(1, min(size, -(-len(text) // 2)))
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    return parts if len(parts) > 1 else [text, ""]
