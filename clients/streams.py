"""The decoder of a streamed completion: from bytes to events, the last of them the answer. No IO."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from winnow.clients.answers import Answer, Event, Piece
from winnow.clients.errors import StreamBroken, kind_of
from winnow.clients.schema import (
    AnswerMessage,
    BestOfNReport,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    Choice,
    ChunkChoice,
    ErrorBody,
    FinishReason,
    ProgressReport,
    SampledLogprob,
    Usage,
)
from winnow.clients.sse import EventDecoder


@dataclass(slots=True)
class _Choice:
    """The received parts of one choice."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[SampledLogprob] | None = None
    finish_reason: FinishReason | None = None

    def add(self, part: ChunkChoice) -> None:
        if part.delta.content:
            self.texts.append(part.delta.content)
        if part.logprobs:
            self.logprobs = [*(self.logprobs or ()), *part.logprobs.content]
        self.finish_reason = part.finish_reason or self.finish_reason


class StreamedAnswer:
    """Decodes one stream. `is_done` is true once the answer is complete; later bytes are ignored."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.is_done = False
        self._decoder = EventDecoder()
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._report: BestOfNReport | None = None
        self._last: ChatCompletionChunk | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes.

        Raises:
            StreamBroken: an event is not what Winnow sends, or a part is missing at the end.
            RefusedByServer: the stream carries an error.
        """
        for event in self._decoder.feed(data):
            if self.is_done:
                return
            if event == b"[DONE]":
                answer = self._answer()
                self.is_done = True
                yield answer
            else:
                yield from self._take(self._chunk(event))

    def _chunk(self, event: bytes) -> ChatCompletionChunk:
        try:
            return ChatCompletionChunk.model_validate_json(event)
        except ValidationError as problem:
            try:
                error = ErrorBody.model_validate_json(event).error
            except ValidationError:
                raise StreamBroken("the stream has an event that is not what Winnow sends") from problem
        raise kind_of(error.code, None)(error.message, code=error.code, param=error.param, request_id=self.request_id)

    def _take(self, chunk: ChatCompletionChunk) -> Iterator[Event]:
        self._last = chunk
        self._usage = chunk.usage or self._usage
        match chunk.best_of_n:
            case ProgressReport(progress=progress):
                yield progress
            case BestOfNReport() as report:
                self._report = report
        for part in chunk.choices:
            self._choices.setdefault(part.index, _Choice()).add(part)
            if part.delta.content:
                yield Piece(part.index, part.delta.content)

    def _answer(self) -> Answer:
        choices = [
            Choice(
                index=index,
                message=AnswerMessage(content="".join(choice.texts)),
                logprobs=None if choice.logprobs is None else ChatLogprobs(content=choice.logprobs),
                finish_reason=choice.finish_reason,
            )
            for index, choice in sorted(self._choices.items())
            if choice.finish_reason
        ]
        if not (self._last and self._usage and self._report and choices and len(choices) == len(self._choices)):
            raise StreamBroken("the stream ended without the answer's finish reason, its report or its usage")
        whole = ChatCompletion(
            id=self._last.id,
            created=self._last.created,
            model=self._last.model,
            choices=choices,
            usage=self._usage,
            best_of_n=self._report,
        )
        return Answer(whole, self.request_id)
