"""The two formats in which OpenAI's API wraps an answer: a chat message, or a text that continues the prompt."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from winnow.clients.schema import (
    AnswerMessage,
    BestOfNReport,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    ProgressReport,
    SampledLogprob,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    Usage,
)
from winnow.clients.schema import TokenLogprob as WireLogprob
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Selection, TokenLogprob


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
    return ChatLogprobs(
        content=[
            SampledLogprob(
                token=_token_text(piece, token.token_id, tokenizer),
                logprob=token.logprob,
                bytes=list(piece),
                top_logprobs=[
                    WireLogprob(token=_token_text(other, token_id, tokenizer), logprob=logprob, bytes=list(other))
                    for (token_id, logprob), other in zip(token.top, alternatives, strict=True)
                ],
            )
            for token, piece, alternatives, _ in _text_tokens(answer, tokenizer)
        ]
    )


def text_logprobs(answer: Returned, tokenizer: Tokenizer) -> TextLogprobs | None:
    """Return the same in the format of text completions; of alternatives with equal text only the likeliest is kept."""
    content = chat_logprobs(answer, tokenizer)
    if content is None:
        return None
    return TextLogprobs(
        tokens=[item.token for item in content.content],
        token_logprobs=[item.logprob for item in content.content],
        top_logprobs=[{top.token: top.logprob for top in reversed(item.top_logprobs)} for item in content.content],
        text_offset=[token.start for token in _text_tokens(answer, tokenizer)],
    )


Report = BestOfNReport | ProgressReport


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """Bodies of `/v1/chat/completions`; one object per request."""

    model: str
    tokenizer: Tokenizer
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, answers: Sequence[Returned], usage: Usage, report: BestOfNReport) -> ChatCompletion:
        """Return the whole answer."""
        choices = [
            Choice(
                index=index,
                message=AnswerMessage(content=answer.text),
                logprobs=chat_logprobs(answer, self.tokenizer),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage, best_of_n=report
        )

    def opening(self) -> ChatCompletionChunk:
        """Return the first chunk, sent before sampling. Further choices open with their first piece of text."""
        return self.chunk([ChunkChoice(index=0, delta=Delta(role="assistant", content=""))])

    def pieces(self, answers: Sequence[Returned]) -> list[ChatCompletionChunk]:
        """Return the chunks with the answers' text; a choice's log-probabilities travel with its first piece."""
        return [
            self.chunk(
                [
                    ChunkChoice(
                        index=index,
                        delta=Delta(content=piece, role=None if number or not index else "assistant"),
                        logprobs=None if number else chat_logprobs(answer, self.tokenizer),
                    )
                ]
            )
            for index, answer in enumerate(answers)
            for number, piece in enumerate(_pieces(answer.text))
        ]

    def end(self, answers: Sequence[Returned], report: Report | None) -> ChatCompletionChunk:
        """Return the chunk with the finish reason of each choice."""
        ends = [
            ChunkChoice(index=index, delta=Delta(), finish_reason=answer.finish_reason)
            for index, answer in enumerate(answers)
        ]
        return self.chunk(ends, report=report)

    def chunk(
        self, choices: list[ChunkChoice], *, report: Report | None = None, usage: Usage | None = None
    ) -> ChatCompletionChunk:
        """Return one event of the stream."""
        return ChatCompletionChunk(
            id=self.id, created=self.created, model=self.model, choices=choices, best_of_n=report, usage=usage
        )


@dataclass(frozen=True, slots=True)
class TextFormat:
    """Bodies of `/v1/completions`; `echo` is the prompt's text if it is returned before the answer, else empty."""

    model: str
    tokenizer: Tokenizer
    echo: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, answers: Sequence[Returned], usage: Usage, report: BestOfNReport) -> TextCompletion:
        """Return the whole answer."""
        choices = [
            TextChoice(
                index=index,
                text=self.echo + answer.text,
                logprobs=text_logprobs(answer, self.tokenizer),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        return self.chunk(choices, usage=usage, report=report)

    def opening(self) -> TextCompletion:
        """Return the first chunk, sent before sampling: the prompt if it is echoed."""
        return self.chunk([TextChoice(index=0, text=self.echo)])

    def pieces(self, answers: Sequence[Returned]) -> list[TextCompletion]:
        """Return the chunks with the answers' text; a choice's log-probabilities travel with its first piece."""
        return [
            self.chunk(
                [
                    TextChoice(
                        index=index,
                        text=piece if number or not index else self.echo + piece,
                        logprobs=None if number else text_logprobs(answer, self.tokenizer),
                    )
                ]
            )
            for index, answer in enumerate(answers)
            for number, piece in enumerate(_pieces(answer.text))
        ]

    def end(self, answers: Sequence[Returned], report: Report | None) -> TextCompletion:
        """Return the chunk with the finish reason of each choice."""
        ends = [
            TextChoice(index=index, text="", finish_reason=answer.finish_reason) for index, answer in enumerate(answers)
        ]
        return self.chunk(ends, report=report)

    def chunk(
        self, choices: list[TextChoice], *, report: Report | None = None, usage: Usage | None = None
    ) -> TextCompletion:
        """Return one event of the stream."""
        return TextCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, best_of_n=report, usage=usage
        )


def _pieces(text: str, size: int = 24) -> Sequence[str]:
    """Cut `text` into at least two pieces of about `size` characters, for the content chunks of a stream."""
    step = max(1, min(size, -(-len(text) // 2)))
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    return parts if len(parts) > 1 else [text, ""]
