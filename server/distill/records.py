"""The entries of a journal, a line of JSON each: finished prompts with their selections, and lines without answers.

Everything that exports and reports show is derived from them. Token ids are not kept: the tokenizer's spelling
of a text is what was scored, so they can be recomputed from the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from winnow.models.errors import RunError
from winnow.models.types import (
    Aborted,
    Branch,
    Candidate,
    Failure,
    Message,
    Prompt,
    Reward,
    ScoredCandidate,
    Selection,
    StoppedBy,
    Timings,
)

ProblemKind = Literal["input", "failed"]
FORMAT = 2
"""The journal's format; runs of another one are refused. Winnow 0.1 wrote format 1."""


@dataclass(frozen=True, slots=True)
class DrawnWaves:
    """The waves in which candidates were sampled: so many, out of `requested` candidates at most.

    The first had `start` candidates and each of the others `step`, unless that was more than `requested` or a budget
    had left.
    """

    requested: int
    start: int
    step: int
    count: int
    stopped_by: StoppedBy


@dataclass(frozen=True, slots=True)
class Arm:
    """Candidates of a prompt that were sampled alike: their number, temperature and preprompt, if any.

    The answers are judged, and stored, as answers to the prompt without the preprompt (Llama 2, section 4.2.4).
    `waves` is None where all candidates were sampled at once.
    """

    candidates: int
    temperature: float
    preprompt: str | None = None
    waves: DrawnWaves | None = None

    @property
    def is_context_distilled(self) -> bool:
        """Whether its candidates were sampled with a preprompt that is not stored."""
        return self.preprompt is not None


@dataclass(frozen=True, slots=True)
class Record:
    """A finished prompt: its selection over all arms, and how that was sampled.

    `line` counts from 1 over the whole input. `digest` is the hash of the input line's content. The candidates
    of the first arm have the first indices, those of the second the next, and so on. `mask_history` says that
    the assistant's earlier turns carry no loss: the instruction of ghost attention was not there when they were
    written. `n` answers are returned in OpenAI batch results. The rendered prompt has `prompt_tokens` tokens.
    """

    line: int
    id: str | None
    digest: str
    category: str | None
    mask_history: bool
    n: int
    arms: tuple[Arm, ...]
    prompt_tokens: int
    selection: Selection

    @property
    def messages(self) -> tuple[Message, ...]:
        """The dialog that is answered, as exports store it."""
        return self.selection.prompt.messages

    def is_first(self, candidate: Candidate) -> bool:
        """Whether it was sampled in its arm's first wave, or with all others at once."""
        first = 0
        for arm in self.arms:
            if candidate.index < first + arm.candidates:
                return arm.waves is None or candidate.index < first + arm.waves.start
            first += arm.candidates
        return False

    def arm_of(self, candidate: Candidate) -> Arm:
        """Return the arm that `candidate` belongs to."""
        first_of_next = 0
        for arm in self.arms:
            first_of_next += arm.candidates
            if candidate.index < first_of_next:
                return arm
        raise IndexError(f"candidate {candidate.index} belongs to none of the arms")


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


def other_format(run: object, found: object, version: object) -> RunError:
    """Return the refusal of a run whose journal has the format `found`, by the `version` that wrote it."""
    return RunError(
        f"{run} was written by Winnow {version} in journal format {found}, which this version cannot read; "
        f"continue with Winnow {version}, or choose another --out"
    )


def dump(entry: Entry) -> bytes:
    """Return one line of JSON, without its line end."""
    return orjson.dumps(_problem_body(entry) if isinstance(entry, Problem) else _record_body(entry))


def load(line: bytes) -> Entry:
    """Return the entry that `dump` wrote.

    Raises:
        ValueError: the line is not whole, or not a journal entry.
        RunError: the entry has format 1.
    """
    try:
        body = orjson.loads(line)
        if body.keys() >= {"answers", "silent"}:
            raise other_format("the run", 1, "0.1")
        return _problem(body) if "problem" in body else _record(body)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("not a journal entry") from error


def _problem_body(problem: Problem) -> dict[str, Any]:
    return {
        "line": problem.line,
        "id": problem.id,
        "file": problem.file,
        "file_line": problem.file_line,
        "problem": {"kind": problem.kind, "code": problem.code, "message": problem.message},
    }


def _problem(body: Mapping[str, Any]) -> Problem:
    return Problem(body["line"], body["id"], body["file"], body["file_line"], **body["problem"])


def _record_body(record: Record) -> dict[str, Any]:
    return {
        "line": record.line,
        "id": record.id,
        "digest": record.digest,
        "category": record.category,
        "mask_history": record.mask_history,
        "n": record.n,
        "arms": [_arm_body(arm) for arm in record.arms],
        "prompt_tokens": record.prompt_tokens,
        "selection": _selection_body(record.selection),
    }


def _arm_body(arm: Arm) -> dict[str, Any]:
    body = {"candidates": arm.candidates, "temperature": arm.temperature, "preprompt": arm.preprompt}
    return {**body, "waves": asdict(arm.waves)} if arm.waves else body


def _arm(body: Mapping[str, Any]) -> Arm:
    waves = body.get("waves")
    return Arm(body["candidates"], body["temperature"], body["preprompt"], waves=DrawnWaves(**waves) if waves else None)


def _record(body: Mapping[str, Any]) -> Record:
    return Record(
        line=body["line"],
        id=body["id"],
        digest=body["digest"],
        category=body["category"],
        mask_history=body["mask_history"],
        n=body["n"],
        arms=tuple(map(_arm, body["arms"])),
        prompt_tokens=body["prompt_tokens"],
        selection=_selection(body["selection"]),
    )


def _selection_body(selection: Selection) -> dict[str, Any]:
    return {
        "messages": [message.as_dict() for message in selection.prompt.messages],
        "is_safety": selection.prompt.is_safety,
        "combiner": selection.combiner,
        "scored": [_scored_body(item) for item in selection.scored],
        "ranking": selection.ranking,
        "failures": [{"index": failure.index, "reason": failure.reason} for failure in selection.failures],
        "aborted": [
            {"index": aborted.index, "reason": aborted.reason, "tokens": aborted.tokens}
            for aborted in selection.aborted
        ],
        "truncated_by": selection.truncated_by,
        "empty_last": selection.empty_last,
        "requested": selection.requested,
        "reduced_by": selection.reduced_by,
        "waves": selection.waves,
        "stopped_by": selection.stopped_by,
        "timings": {phase: round(seconds, 4) for phase, seconds in asdict(selection.timings).items()},
    }


def _scored_body(item: ScoredCandidate) -> dict[str, Any]:
    candidate, reward = item.candidate, item.reward
    return {
        "index": candidate.index,
        "text": candidate.text,
        "finish_reason": candidate.finish_reason,
        "tokens": candidate.tokens,
        "safety_logit": reward.safety_logit,
        "helpfulness_logit": reward.helpfulness_logit,
        "branch": reward.branch.value,
    }


def _selection(body: Mapping[str, Any]) -> Selection:
    messages = tuple(Message(message["role"], message["content"]) for message in body["messages"])
    return Selection(
        prompt=Prompt((), messages, body["is_safety"]),
        combiner=body["combiner"],
        scored=tuple(map(_scored, body["scored"])),
        ranking=tuple(body["ranking"]),
        failures=tuple(Failure(**failure) for failure in body["failures"]),
        timings=Timings(**body["timings"]),
        aborted=tuple(Aborted(**aborted) for aborted in body["aborted"]),
        truncated_by=body["truncated_by"],
        empty_last=body.get("empty_last", False),  # entries without it are older than the rule
        requested=body.get("requested"),
        reduced_by=body.get("reduced_by"),
        waves=body.get("waves"),
        stopped_by=body.get("stopped_by"),
    )


def _scored(body: Mapping[str, Any]) -> ScoredCandidate:
    candidate = Candidate(body["index"], body["text"], body["finish_reason"], body["tokens"])
    reward = Reward(body["safety_logit"], body["helpfulness_logit"], Branch(body["branch"]))
    return ScoredCandidate(candidate, reward)
