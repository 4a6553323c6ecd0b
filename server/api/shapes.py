"""The two shapes in which OpenAI's API wraps an answer: a chat message, or a text that continues the prompt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.server.api import views
from winnow.server.api.responses import Returned

Report = BestOfNReport | ProgressReport


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Bodies of `/v1/chat/completions`; one object a request."""

    model: str
    template: Llama2Template
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, answers: Sequence[Returned], usage: Usage, report: BestOfNReport) -> ChatCompletion:
        """The whole answer."""
        choices = [
            Choice(
                index=index,
                message=AnswerMessage(content=answer.text),
                logprobs=views.chat_logprobs(answer, self.template),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage, best_of_n=report
        )

    def opening(self) -> ChatCompletionChunk:
        """The first chunk, sent before anything is known. Further choices open when there is something to put into them."""
        return self.chunk([ChunkChoice(index=0, delta=Delta(role="assistant", content=""))])

    def pieces(self, answers: Sequence[Returned]) -> list[ChatCompletionChunk]:
        """The answers' words; a choice's log-probabilities travel with its first piece."""
        return [
            self.chunk(
                [
                    ChunkChoice(
                        index=index,
                        delta=Delta(content=piece, role=None if number or not index else "assistant"),
                        logprobs=None if number else views.chat_logprobs(answer, self.template),
                    )
                ]
            )
            for index, answer in enumerate(answers)
            for number, piece in enumerate(views.pieces(answer.text))
        ]

    def end(self, answers: Sequence[Returned], report: Report | None) -> ChatCompletionChunk:
        """The chunk that says why each choice ended."""
        ends = [
            ChunkChoice(index=index, delta=Delta(), finish_reason=answer.finish_reason)
            for index, answer in enumerate(answers)
        ]
        return self.chunk(ends, report=report)

    def chunk(
        self, choices: list[ChunkChoice], *, report: Report | None = None, usage: Usage | None = None
    ) -> ChatCompletionChunk:
        """One event of the stream."""
        return ChatCompletionChunk(
            id=self.id, created=self.created, model=self.model, choices=choices, best_of_n=report, usage=usage
        )


@dataclass(frozen=True, slots=True)
class TextShape:
    """Bodies of `/v1/completions`; `echo` is the prompt's text if it is to stand before the answer, else empty."""

    model: str
    template: Llama2Template
    echo: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, answers: Sequence[Returned], usage: Usage, report: BestOfNReport) -> TextCompletion:
        """The whole answer."""
        choices = [
            TextChoice(
                index=index,
                text=self.echo + answer.text,
                logprobs=views.text_logprobs(answer, self.template),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        return self.chunk(choices, usage=usage, report=report)

    def opening(self) -> TextCompletion:
        """The first chunk, sent before anything is known: the prompt if it is echoed."""
        return self.chunk([TextChoice(index=0, text=self.echo)])

    def pieces(self, answers: Sequence[Returned]) -> list[TextCompletion]:
        """The answers' words; a choice's log-probabilities travel with its first piece."""
        return [
            self.chunk(
                [
                    TextChoice(
                        index=index,
                        text=piece if number or not index else self.echo + piece,
                        logprobs=None if number else views.text_logprobs(answer, self.template),
                    )
                ]
            )
            for index, answer in enumerate(answers)
            for number, piece in enumerate(views.pieces(answer.text))
        ]

    def end(self, answers: Sequence[Returned], report: Report | None) -> TextCompletion:
        """The chunk that says why each choice ended."""
        ends = [
            TextChoice(index=index, text="", finish_reason=answer.finish_reason) for index, answer in enumerate(answers)
        ]
        return self.chunk(ends, report=report)

    def chunk(
        self, choices: list[TextChoice], *, report: Report | None = None, usage: Usage | None = None
    ) -> TextCompletion:
        """One event of the stream."""
        return TextCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, best_of_n=report, usage=usage
        )
