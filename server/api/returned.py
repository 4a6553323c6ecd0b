"""The answers that a response returns: their texts, their log-probabilities, and their pieces on a stream."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from winnow.clients.schema import ChatLogprobs, FinishReason, SampledLogprob, TextLogprobs
from winnow.clients.schema import TokenLogprob as WireLogprob
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Selection, TokenLogprob

PIECE = 24
"""Characters of a piece, about."""


class Returned(NamedTuple):
    """An answer as the client gets it; `logprobs` is None if not requested, or if it is a refusal."""

    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None
    prefix: str = ""
    """Text at the start of the first token that is not part of the answer; see `Prompt.answer_prefix`."""


def returned(selection: Selection, n: int, refusal: str | None) -> list[Returned]:
    """Return the best `n` answers, the winner first, or `refusal` in place of each."""
    if refusal is not None:
        return [Returned(refusal, "content_filter")] * min(n, len(selection.scored))
    best = [item.candidate for item in selection.ranked[:n]]
    prefix = selection.prompt.answer_prefix
    return [Returned(candidate.text, candidate.finish_reason, candidate.logprobs, prefix) for candidate in best]


class _TextToken(NamedTuple):
    """A sampled token with its bytes, the bytes of the alternatives at its place, and where it starts in the text.

    A token that goes on with a character starts where that character does.
    """

    token: TokenLogprob
    piece: bytes
    alternatives: tuple[bytes, ...]
    start: int


def _text_tokens(answer: Returned, tokenizer: Tokenizer) -> list[_TextToken]:
    """Return the tokens of the answer's text: no control ids, nothing after a stop string or tag, no prefix."""
    found: list[_TextToken] = []
    decoder, start = codecs.getincrementaldecoder("utf-8")(errors="ignore"), 0
    prefix = answer.prefix.encode()
    for token in answer.logprobs or ():
        if start >= len(answer.text):
            break
        spelt = tokenizer.token_bytes(token.token_id)
        piece = spelt.removeprefix(prefix)
        if token.token_id not in tokenizer.control_ids:
            alternatives = tuple(tokenizer.token_bytes(token_id).removeprefix(prefix) for token_id, _ in token.top)
            found.append(_TextToken(token, piece, alternatives, start))
        text = decoder.decode(piece)
        if text or piece != spelt:
            prefix = b""
        start += len(text)
    return found


def _token_text(piece: bytes, token_id: int, tokenizer: Tokenizer) -> str:
    """Return the token's text; the vocabulary's name for it, such as `<0xE4>`, where it is not text by itself."""
    try:
        return piece.decode() or tokenizer.token_name(token_id)
    except UnicodeDecodeError:
        return tokenizer.token_name(token_id)


def chat_logprobs(answer: Returned, tokenizer: Tokenizer) -> ChatLogprobs | None:
    """Return the log-probabilities in the format of chat completions."""
    if answer.logprobs is None:
        return None
    return ChatLogprobs(content=[_sampled(token, tokenizer) for token in _text_tokens(answer, tokenizer)])


def _sampled(item: _TextToken, tokenizer: Tokenizer) -> SampledLogprob:
    token = item.token
    return SampledLogprob(
        token=_token_text(item.piece, token.token_id, tokenizer),
        logprob=token.logprob,
        bytes=list(item.piece),
        top_logprobs=[
            WireLogprob(token=_token_text(other, token_id, tokenizer), logprob=logprob, bytes=list(other))
            for (token_id, logprob), other in zip(token.top, item.alternatives, strict=True)
        ],
    )


def text_logprobs(answer: Returned, tokenizer: Tokenizer) -> TextLogprobs | None:
    """Return the same in the format of text completions; of alternatives with equal text only the likeliest is kept."""
    if answer.logprobs is None:
        return None
    tokens = _text_tokens(answer, tokenizer)
    sampled = [_sampled(token, tokenizer) for token in tokens]
    return TextLogprobs(
        tokens=[item.token for item in sampled],
        token_logprobs=[item.logprob for item in sampled],
        top_logprobs=[{top.token: top.logprob for top in reversed(item.top_logprobs)} for item in sampled],
        text_offset=[token.start for token in tokens],
    )


class Piece(NamedTuple):
    """A part of an answer's text, and which of the answer's tokens spell it."""

    text: str
    tokens: slice


def pieces(answer: Returned, tokenizer: Tokenizer) -> Iterator[Piece]:
    """Yield at least two parts of the answer, of about `PIECE` characters, each of whole tokens and whole characters.

    Without log-probabilities the tokens are the tokenizer's own spelling of the text: the sampled ones are not kept.
    """
    starts = _token_starts(answer, tokenizer)
    step = min(PIECE, -(-len(answer.text) // 2))
    text_from, token_from = 0, 0
    for token in range(1, len(starts)):
        start = starts[token]
        # A token that starts where the one before it does goes on with a character.
        if start - text_from >= step and start > starts[token - 1]:
            yield Piece(answer.text[text_from:start], slice(token_from, token))
            text_from, token_from = start, token
    yield Piece(answer.text[text_from:], slice(token_from, len(starts)))
    if not text_from:
        yield Piece("", slice(len(starts), len(starts)))


def _token_starts(answer: Returned, tokenizer: Tokenizer) -> list[int]:
    """Return the place in the text at which each of its tokens starts."""
    if answer.logprobs is None:
        ids = tokenizer.encode_continuation(answer.prefix + answer.text) if answer.text else []
        answer = answer._replace(logprobs=tuple(TokenLogprob(token_id, 0.0) for token_id in ids))
    return [token.start for token in _text_tokens(answer, tokenizer)]


def part_of_chat(logprobs: ChatLogprobs, tokens: slice) -> ChatLogprobs:
    """Return the log-probabilities of these tokens."""
    return ChatLogprobs(content=logprobs.content[tokens])


def part_of_text(logprobs: TextLogprobs, tokens: slice) -> TextLogprobs:
    """Return the log-probabilities of these tokens; their offsets count from the start of the text."""
    return TextLogprobs(
        tokens=logprobs.tokens[tokens],
        token_logprobs=logprobs.token_logprobs[tokens],
        top_logprobs=logprobs.top_logprobs[tokens],
        text_offset=logprobs.text_offset[tokens],
    )
