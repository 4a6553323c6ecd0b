"""What rows are made of: a prompt with its ranked answers, from one run or from several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.models.combiner import rank
from winnow.models.errors import RunError
from winnow.models.types import Candidate, Message, Reward, ScoredCandidate
from winnow.server.distill.records import Arm, Record, ScoredAnswer


@dataclass(frozen=True, slots=True)
class Answer:
    """A scored answer with its rank (0 is the winner) among all answers to its prompt, and where it came from.

    `run` names the folder, None unless runs were merged; `record` is what that run's journal holds of the prompt.
    """

    run: str | None
    record: Record
    scored: ScoredAnswer
    rank: int

    @property
    def text(self) -> str:
        """What was sampled."""
        return self.scored.text

    @property
    def reward(self) -> Reward:
        """What the reward models said."""
        return self.scored.reward

    @property
    def arm(self) -> Arm:
        """How it was sampled."""
        return self.record.arms[self.scored.arm]


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt and all its answers, best first; never empty. `lead` is its record in the first run that has it.

    `silent`: the assistant's earlier turns carry no loss.
    """

    lead: Record
    silent: bool
    answers: tuple[Answer, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The dialog that is answered."""
        return self.lead.messages


Part = tuple[str | None, Record]
"""What one run, by its name, has of a prompt."""


def answered(run: str | None, record: Record) -> AnsweredPrompt:
    """A record as it is, in the ranking of its run."""
    answers = tuple(Answer(run, record, scored, place) for place, scored in enumerate(record.ranked))
    return AnsweredPrompt(record, record.silent, answers)


def joined(parts: Sequence[Part]) -> AnsweredPrompt:
    """The answers of several runs to one prompt, ranked together; ties go to the earlier run.

    Raises:
        RunError: the runs ranked the prompt's answers by different rules, so that their rewards do not compare.
    """
    (name, lead), *others = parts
    if not others:
        return answered(name, lead)
    for other, record in others:
        for rule, ours, theirs in (
            ("its combiner", lead.combiner, record.combiner),
            ("whether it is a safety prompt", lead.is_safety, record.is_safety),
        ):
            if ours != theirs:
                raise RunError(
                    f"line {lead.line} of {name} cannot be merged with line {record.line} of {other}: "
                    f"{rule} differs ({ours}, {theirs}), so their rewards cannot be compared"
                )
    pool = [(run, record, scored) for run, record in parts for scored in record.answers]
    entrants = [entrant(scored, position) for position, (_, _, scored) in enumerate(pool)]
    ranking = rank(entrants, lead.combiner)
    answers = tuple(Answer(*pool[position], place) for place, position in enumerate(ranking))
    return AnsweredPrompt(lead, any(record.silent for _, record in parts), answers)


def entrant(scored: ScoredAnswer, index: int) -> ScoredCandidate:
    """An answer as the ranking knows it, numbered `index`; its token ids are not kept."""
    return ScoredCandidate(
        Candidate(index, (), scored.text, scored.finish_reason, scored.tokens),
        scored.reward,
    )
