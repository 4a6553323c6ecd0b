"""The two formats in which OpenAI's API wraps an answer: a chat message, or a text that continues the prompt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from winnow.clients.schema import (
    AnswerMessage,
    BestOfNReport,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    ProgressReport,
    TextChoice,
    TextCompletion,
    Usage,
)
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.returned import Returned, chat_logprobs, part_of_chat, part_of_text, pieces, text_logprobs

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

    def pieces(self, index: int, answer: Returned) -> Iterator[ChatCompletionChunk]:
        """Yield the chunks with the text of choice `index`, each with the log-probabilities of its tokens."""
        logprobs = chat_logprobs(answer, self.tokenizer)
        role: Literal["assistant"] | None = "assistant" if index else None
        for piece in pieces(answer, self.tokenizer):
            part = part_of_chat(logprobs, piece.tokens) if logprobs else None
            yield self.chunk([ChunkChoice(index=index, delta=Delta(content=piece.text, role=role), logprobs=part)])
            role = None

    def end(self, index: int, answer: Returned, report: Report | None) -> ChatCompletionChunk:
        """Return the chunk with the finish reason of choice `index`: its own, for readers of one choice a chunk."""
        return self.chunk([ChunkChoice(index=index, delta=Delta(), finish_reason=answer.finish_reason)], report=report)

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

    def pieces(self, index: int, answer: Returned) -> Iterator[TextCompletion]:
        """Yield the chunks with the text of choice `index`, each with the log-probabilities of its tokens."""
        logprobs = text_logprobs(answer, self.tokenizer)
        echo = self.echo if index else ""
        for piece in pieces(answer, self.tokenizer):
            part = part_of_text(logprobs, piece.tokens) if logprobs else None
            yield self.chunk([TextChoice(index=index, text=echo + piece.text, logprobs=part)])
            echo = ""

    def end(self, index: int, answer: Returned, report: Report | None) -> TextCompletion:
        """Return the chunk with the finish reason of choice `index`."""
        return self.chunk([TextChoice(index=index, text="", finish_reason=answer.finish_reason)], report=report)

    def chunk(
        self, choices: list[TextChoice], *, report: Report | None = None, usage: Usage | None = None
    ) -> TextCompletion:
        """Return one event of the stream."""
        return TextCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, best_of_n=report, usage=usage
        )
