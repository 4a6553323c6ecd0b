"""Selections as wire bodies. Pure functions; what is derived here is stored nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from winnow.clients.wire import (
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
from winnow.clients.wire import Progress as WireProgress
from winnow.clients.wire import TokenLogprob as WireLogprob
from winnow.models.template import Llama2Template
from winnow.models.types import Branch, Progress, Reward, ScoredCandidate, Selection, TokenLogprob


class Returned(NamedTuple):
    """One answer as the client gets it; `logprobs` None if not asked for, or if it is a refusal."""

    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None


def returned(selection: Selection, n: int, refusal: str | None) -> list[Returned]:
    """The best `n` answers, the winner first; or `refusal` in the place of each."""
    if refusal is not None:
        return [Returned(refusal, "content_filter", None)] * min(n, len(selection.scored))
    best = [item.candidate for item in selection.ranked[:n]]
    return [Returned(candidate.text, candidate.finish_reason, candidate.logprobs) for candidate in best]


def _within(answer: Returned, template: Llama2Template) -> list[tuple[TokenLogprob, bytes]]:
    """The tokens that the text holds, with their bytes: no control ids, nothing behind a stop string, no dummy space."""
    tokens = [(item, template.token_bytes(item.token_id)) for item in answer.logprobs or ()]
    tokens = [(item, piece) for item, piece in tokens if piece]
    if tokens and not answer.text.startswith(" "):
        first, piece = tokens[0]
        tokens[0] = (first, piece.removeprefix(b" "))
    size = len(answer.text.encode())
    starts = accumulate((len(piece) for _, piece in tokens), initial=0)
    return [token for token, start in zip(tokens, starts, strict=False) if start < size]


def chat_logprobs(answer: Returned, template: Llama2Template) -> ChatLogprobs | None:
    """The log-probabilities as chat completions have them."""
    if answer.logprobs is None:
        return None

    def shown(token_id: int, logprob: float, piece: bytes) -> dict[str, Any]:
        text = piece.decode(errors="replace") or str(template.tokenizer.convert_ids_to_tokens(token_id))
        return {"token": text, "logprob": logprob, "bytes": list(piece)}

    return ChatLogprobs(
        content=[
            SampledLogprob(
                **shown(item.token_id, item.logprob, piece),
                top_logprobs=[
                    WireLogprob(**shown(token_id, logprob, template.token_bytes(token_id)))
                    for token_id, logprob in item.top
                ],
            )
            for item, piece in _within(answer, template)
        ]
    )


def text_logprobs(answer: Returned, template: Llama2Template) -> TextLogprobs | None:
    """The same as text completions have them."""
    content = chat_logprobs(answer, template)
    if content is None:
        return None
    tokens = [item.token for item in content.content]
    return TextLogprobs(
        tokens=tokens,
        token_logprobs=[item.logprob for item in content.content],
        top_logprobs=[{top.token: top.logprob for top in item.top_logprobs} for item in content.content],
        text_offset=list(accumulate(map(len, tokens), initial=0))[:-1],
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
        all_unsafe=selection.all_unsafe,
        safe_passed_over=selection.safe_passed_over,
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


def log_fields(selection: Selection) -> dict[str, Any]:
    """What the access log says of a selection: numbers and names, never text."""
    return {
        "candidates": selection.requested,
        "failed": len(selection.failures),
        "prompt_tokens": len(selection.prompt),
        "sampled_tokens": selection.sampled_tokens,
        "winner": selection.winner.candidate.index,
        "branch": selection.winner.reward.branch.value,
        "reward": round(selection.winner.reward.combined, 4),
        "all_unsafe": selection.all_unsafe,
        **{f"{name}_ms": value for name, value in timings(selection).model_dump().items()},
    }


def log_content(selection: Selection, template: Llama2Template) -> dict[str, Any]:
    """What was asked and answered; only for operators who want it in their logs."""
    return {
        "prompt": str(template.tokenizer.decode(selection.prompt.token_ids)),
        "answer": selection.winner.candidate.text,
    }


def pieces(text: str, size: int = 24) -> Sequence[str]:
    """Cut `text` into at least two pieces of about `size` characters, for the content chunks of a stream."""
    step = max(1, min(size, -(-len(text) // 2)))
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    return parts if len(parts) > 1 else [text, ""]
