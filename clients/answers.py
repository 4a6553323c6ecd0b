"""Results of a call: the answer with its scores, and the events of a stream that leads to it."""

from __future__ import annotations

from dataclasses import dataclass

from winnow.clients.errors import UnreadableAnswer
from winnow.clients.schema import (
    BestOfNReport,
    ChatCompletion,
    Failed,
    FinishReason,
    Progress,
    Reduction,
    Scored,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The best of K candidates, with the scores that decided it.

    `completion` is the body as sent by the server, or assembled from a stream. `request_id` identifies the call
    in the server's log.

    Raises:
        UnreadableAnswer: the body has no choice, or no score for its winner.
    """

    completion: ChatCompletion
    request_id: str

    def __post_init__(self) -> None:
        if not self.completion.choices or all(item.index != self.report.winner for item in self.report.scored):
            raise UnreadableAnswer("the server's answer has no choice, or no score for its winner")

    @property
    def id(self) -> str:
        """Id of the completion."""
        return self.completion.id

    @property
    def text(self) -> str:
        """Text of the winner; if `is_refused`, the operator's refusal."""
        return self.texts[0]

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts of all `n` returned answers, best first."""
        return tuple(choice.message.content for choice in self.completion.choices)

    @property
    def finish_reason(self) -> FinishReason:
        """Reason for the end of the winner's text."""
        return self.completion.choices[0].finish_reason

    @property
    def is_refused(self) -> bool:
        """Whether `text` is a refusal, because every candidate was unsafe and the server returns no unsafe answer."""
        return self.finish_reason == "content_filter"

    @property
    def report(self) -> BestOfNReport:
        """The `best_of_n` object."""
        return self.completion.best_of_n

    @property
    def winner(self) -> Scored:
        """Scores of the winner."""
        return next(item for item in self.report.scored if item.index == self.report.winner)

    @property
    def candidates(self) -> tuple[Scored, ...]:
        """All scored candidates, best first."""
        return tuple(sorted(self.report.scored, key=lambda item: item.rank))

    @property
    def failed(self) -> tuple[Failed, ...]:
        """Candidates that could not be sampled or scored."""
        return tuple(self.report.failed)

    @property
    def all_unsafe(self) -> bool:
        """Whether every candidate has R_s below the safety threshold of 0.15."""
        return self.report.all_unsafe

    @property
    def reduced_by(self) -> Reduction | None:
        """Reason for which fewer candidates were sampled than requested, such as temperature 0; None if all were."""
        return self.report.reduced_by

    @property
    def usage(self) -> Usage:
        """Token counts over all candidates, unless the request counts the returned ones alone."""
        return self.completion.usage


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the text of choice `index`. The pieces of a choice arrive in order and are never empty."""

    index: int
    text: str


Event = Progress | Piece | Answer
"""An event of a stream: progress while candidates run, then pieces, then one answer."""
