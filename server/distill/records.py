"""What the journal holds, a line each: a finished prompt with all its scored answers, or a line that has none, and why.

Plain data and its JSON. Everything that exports and reports show is derived from it. Token ids are not kept: the tokenizer's
spelling of a text is what was scored, so they can be had from the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from winnow.models.types import Branch, CombinerName, Failure, FinishReason, Message, Reward

ProblemKind = Literal["input", "failed"]
FORMAT = 1
"""The journal's format; a run that was begun in another one is refused."""


@dataclass(frozen=True, slots=True)
class Arm:
    """How some of a prompt's candidates were sampled: so many of them, at a temperature, behind a preprompt if one is named.

    The answers are judged, and stored, as answers to the prompt without the preprompt (Llama 2, section 4.2.4).
    """

    candidates: int
    temperature: float
    preprompt: str | None = None


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One candidate. `arm` is a position in the record's `arms`; `tokens` counts what was sampled, EOS included."""

    index: int
    arm: int
    text: str
    finish_reason: FinishReason
    tokens: int
    reward: Reward


@dataclass(frozen=True, slots=True)
class Record:
    """A finished prompt. `messages` are those that exports store; `answers` is in candidate order and never empty.

    `line` counts from 1 over the whole input. `ranking` holds positions into `answers`, best first. `silent` says that the
    assistant's earlier turns carry no loss: the instruction of ghost attention was not there when they were written.
    `n` answers are returned in OpenAI batch results. `digest` is the hash of the input line's content.
    """

    line: int
    id: str | None
    digest: str
    messages: tuple[Message, ...]
    is_safety: bool
    category: str | None
    silent: bool
    n: int
    combiner: CombinerName
    arms: tuple[Arm, ...]
    answers: tuple[ScoredAnswer, ...]
    ranking: tuple[int, ...]
    failures: tuple[Failure, ...]
    prompt_tokens: int
    seconds: float

    @property
    def winner(self) -> ScoredAnswer:
        """The best answer."""
        return self.answers[self.ranking[0]]

    @property
    def ranked(self) -> tuple[ScoredAnswer, ...]:
        """All scored answers, best first."""
        return tuple(self.answers[position] for position in self.ranking)

    @property
    def all_unsafe(self) -> bool:
        """Whether every answer is gated, so that even the best one is unsafe."""
        return all(answer.reward.is_gated for answer in self.answers)

    def temperature(self, answer: ScoredAnswer) -> float:
        """The temperature that `answer` was sampled at."""
        return self.arms[answer.arm].temperature

    def is_context_distilled(self, answer: ScoredAnswer) -> bool:
        """Whether `answer` was sampled behind a preprompt that is not stored."""
        return self.arms[answer.arm].preprompt is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """An input line without answers. `kind` says whether the line is at fault, or every candidate failed."""

    line: int
    id: str | None
    file: str
    file_line: int
    kind: ProblemKind
    code: str
    message: str


Entry = Record | Problem


def dump(entry: Entry) -> bytes:
    """One line of JSON, without its end."""
    return orjson.dumps(_of_problem(entry) if isinstance(entry, Problem) else _of_record(entry))


def load(line: bytes) -> Entry:
    """What `dump` wrote.

    Raises:
        ValueError: the line is not whole, or not one of ours.
    """
    try:
        body = orjson.loads(line)
        return _to_problem(body) if "problem" in body else _to_record(body)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("not a journal entry") from error


def _of_problem(problem: Problem) -> dict[str, Any]:
    return {
        "line": problem.line,
        "id": problem.id,
        "file": problem.file,
        "file_line": problem.file_line,
        "problem": {"kind": problem.kind, "code": problem.code, "message": problem.message},
    }


def _to_problem(body: Mapping[str, Any]) -> Problem:
    return Problem(body["line"], body["id"], body["file"], body["file_line"], **body["problem"])


def _of_record(record: Record) -> dict[str, Any]:
    return {
        "line": record.line,
        "id": record.id,
        "digest": record.digest,
        "messages": [{"role": message.role, "content": message.content} for message in record.messages],
        "is_safety": record.is_safety,
        "category": record.category,
        "silent": record.silent,
        "n": record.n,
        "combiner": record.combiner,
        "arms": [
            {"candidates": arm.candidates, "temperature": arm.temperature, "preprompt": arm.preprompt}
            for arm in record.arms
        ],
        "answers": [
            {
                "index": answer.index,
                "arm": answer.arm,
                "text": answer.text,
                "finish_reason": answer.finish_reason,
                "tokens": answer.tokens,
                "safety_logit": answer.reward.safety_logit,
                "helpfulness_logit": answer.reward.helpfulness_logit,
                "branch": answer.reward.branch.value,
            }
            for answer in record.answers
        ],
        "ranking": record.ranking,
        "failures": [{"index": failure.index, "reason": failure.reason} for failure in record.failures],
        "prompt_tokens": record.prompt_tokens,
        "seconds": round(record.seconds, 4),
    }


def _to_record(body: Mapping[str, Any]) -> Record:
    return Record(
        line=body["line"],
        id=body["id"],
        digest=body["digest"],
        messages=tuple(Message(message["role"], message["content"]) for message in body["messages"]),
        is_safety=body["is_safety"],
        category=body["category"],
        silent=body["silent"],
        n=body["n"],
        combiner=body["combiner"],
        arms=tuple(Arm(**arm) for arm in body["arms"]),
        answers=tuple(map(_to_answer, body["answers"])),
        ranking=tuple(body["ranking"]),
        failures=tuple(Failure(**failure) for failure in body["failures"]),
        prompt_tokens=body["prompt_tokens"],
        seconds=body["seconds"],
    )


def _to_answer(body: Mapping[str, Any]) -> ScoredAnswer:
    reward = Reward(body["safety_logit"], body["helpfulness_logit"], Branch(body["branch"]))
    return ScoredAnswer(body["index"], body["arm"], body["text"], body["finish_reason"], body["tokens"], reward)
