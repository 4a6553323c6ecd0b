"""What a client gets back: the answer with its scores, and the events of a stream on the way to it."""

from __future__ import annotations

from dataclasses import dataclass

from winnow.clients.errors import UnreadableAnswer
from winnow.clients.schema import BestOfNReport, ChatCompletion, Failed, FinishReason, Progress, Scored, Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """The best of K candidates, and why it is.

    `completion` is the body as the server sent it, or put together from a stream. `request_id` is the call's name in the
    server's log.
    """

    completion: ChatCompletion
    request_id: str

    def __post_init__(self) -> None:
        if not self.completion.choices or all(item.index != self.report.winner for item in self.report.scored):
            raise UnreadableAnswer("the server's answer has no choice, or no score for its winner")

    @property
    def id(self) -> str:
        """The completion's id."""
        return self.completion.id

    @property
    def text(self) -> str:
        """The winner's text, or the operator's refusal in its place."""
        return self.texts[0]

    @property
    def texts(self) -> tuple[str, ...]:
        """All `n` returned answers, best first."""
        return tuple(choice.message.content for choice in self.completion.choices)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the winner's text ends."""
        return self.completion.choices[0].finish_reason

    @property
    def is_refused(self) -> bool:
        """Whether the text is a refusal: every candidate was unsafe, and the operator wants none of them returned."""
        return self.finish_reason == "content_filter"

    @property
    def report(self) -> BestOfNReport:
        """The `best_of_n` object."""
        return self.completion.best_of_n

    @property
    def winner(self) -> Scored:
        """The winner's scores."""
        return next(item for item in self.report.scored if item.index == self.report.winner)

    @property
    def candidates(self) -> tuple[Scored, ...]:
        """Every scored candidate, best first."""
        return tuple(sorted(self.report.scored, key=lambda item: item.rank))

    @property
    def failed(self) -> tuple[Failed, ...]:
        """The candidates that could not be sampled or scored."""
        return tuple(self.report.failed)

    @property
    def all_unsafe(self) -> bool:
        """Whether every candidate has R_s below the gate of 0.15."""
        return self.report.all_unsafe

    @property
    def usage(self) -> Usage:
        """Token counts, over all candidates."""
        return self.completion.usage


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the text of choice `index`; a choice's pieces come in order and are never empty."""

    index: int
    text: str


Event = Progress | Piece | Answer
"""What a stream yields: progress while candidates run, then pieces, then one answer."""
