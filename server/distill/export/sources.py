"""The prompts of an export with their ranked answers, from one run or from several merged runs.

Texts stay on disk: an index of each merged run holds 16 bytes of hash and a journal offset for each prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from winnow.models.combiner import rank
from winnow.models.errors import RunError
from winnow.models.types import Candidate, Message, Reward, ScoredCandidate
from winnow.server.distill import journal, manifest
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.records import Arm, Problem, Record, load

DECIDES_REWARDS = (
    ("the safety model's hash", ("models", "safety", "sha256")),
    ("the helpfulness model's hash", ("models", "helpfulness", "sha256")),
    ("the combiner", ("settings", "combiner")),
    ("empty_last", ("settings", "empty_last")),
    ("safety_scale", ("settings", "safety_scale")),
    ("safety_bias", ("settings", "safety_bias")),
    ("helpfulness_scale", ("settings", "helpfulness_scale")),
    ("helpfulness_bias", ("settings", "helpfulness_bias")),
)
"""Manifest entries that must be equal in two runs for their rewards to be on one scale."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A scored answer with its rank (0 is the winner) among all answers to its prompt.

    `run` is the folder name of its run, None unless runs were merged; `record` is that run's own.
    """

    run: str | None
    record: Record
    scored: ScoredCandidate
    rank: int

    @property
    def candidate(self) -> Candidate:
        """The sampled answer."""
        return self.scored.candidate

    @property
    def reward(self) -> Reward:
        """Its scores."""
        return self.scored.reward

    @property
    def arm(self) -> Arm:
        """The arm it was sampled by."""
        return self.record.arm_of(self.candidate)


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt and all its answers, best first; never empty.

    `lead` is its record in the first run that has it. `mask_history`: the assistant's earlier turns carry no loss.
    """

    lead: Record
    mask_history: bool
    answers: tuple[Answer, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The dialog that is answered."""
        return self.lead.messages

    @property
    def candidates(self) -> int:
        """K: the candidates that were sampled, failed ones included, in all runs."""
        records = {id(answer.record): answer.record for answer in self.answers}
        return sum(record.selection.candidates for record in records.values())


ExportEntry = AnsweredPrompt | Problem
NamedRecord = tuple[str | None, Record]
"""The name of a run and its record of a prompt."""


class Source(Protocol):
    """Answered prompts to export, which can be iterated repeatedly: merged runs, or a store.

    `manifests` say what decided the answers, and `names` tell their runs apart: None if there is one.
    """

    manifests: list[Manifest]
    names: list[str | None]

    def __iter__(self) -> Iterator[ExportEntry]: ...


class MergedRuns:
    """The entries of one run, or of several as one, in the order of the first run's input; can be iterated repeatedly.

    With `merge`, prompts whose messages are equal become one prompt with the answers of all runs: the
    j-th of equal prompts in one run goes with the j-th in the others. Prompts that only merged runs have
    follow, in the order of those runs.

    Raises:
        RunError: a folder holds no run, two folders are the same or share a name, or their rewards cannot be compared.
    """

    def __init__(self, folder: Path, merge: Sequence[Path] = ()) -> None:
        self._folder = folder
        folders = (folder, *merge)
        self.manifests: list[Manifest] = [manifest.load(path) for path in folders]
        self.names: list[str | None] = [path.resolve().name for path in folders] if merge else [None]
        _check_names(folders, self.names)
        for other, path in zip(self.manifests[1:], merge, strict=True):
            require_comparable(self.manifests[0], folder, other, path)
        self._others = [_Index(path) for path in merge]

    def __iter__(self) -> Iterator[ExportEntry]:
        unmatched = [dict(other.offsets) for other in self._others]
        identity = _Identities()
        for entry in journal.read(self._folder):
            if isinstance(entry, Problem):
                yield entry
            else:
                others = self._matches(unmatched, identity(entry.messages)) if unmatched else []
                yield merged([(self.names[0], entry), *others])
        for first, offsets in enumerate(unmatched):
            for key in list(offsets):
                yield merged(self._matches(unmatched, key, first))

    def _matches(self, unmatched: list[dict[bytes, int]], key: bytes, first: int = 0) -> list[NamedRecord]:
        """Remove a prompt from the merged runs, from number `first` on, and return their records of it."""
        parts: list[NamedRecord] = []
        for number in range(first, len(unmatched)):
            offset = unmatched[number].pop(key, None)
            if offset is not None:
                parts.append((self.names[number + 1], self._others[number].record(offset)))
        return parts


def merged(parts: Sequence[NamedRecord]) -> AnsweredPrompt:
    """Return the answers of several runs to one prompt, ranked together; ties go to the earlier run.

    Raises:
        RunError: the runs ranked the prompt's answers by different rules, so that their rewards cannot be compared.
    """
    (name, lead), *others = parts
    for other, record in others:
        ours, theirs = lead.selection, record.selection
        for rule, left, right in (
            ("its combiner", ours.combiner, theirs.combiner),
            ("empty_last", ours.empty_last, theirs.empty_last),
            ("whether it is a safety prompt", ours.prompt.is_safety, theirs.prompt.is_safety),
        ):
            if left != right:
                raise RunError(
                    f"line {lead.line} of {name} cannot be merged with line {record.line} of {other}: "
                    f"{rule} differs ({left}, {right}), so their rewards cannot be compared"
                )
    pool = [(run, record, scored) for run, record in parts for scored in record.selection.scored]
    ranking = lead.selection.ranking
    if others:
        numbered = [replace(item, candidate=replace(item.candidate, index=n)) for n, (_, _, item) in enumerate(pool)]
        ranking = rank(numbered, lead.selection.combiner, empty_last=lead.selection.empty_last)
    answers = tuple(Answer(*pool[position], place) for place, position in enumerate(ranking))
    return AnsweredPrompt(lead, any(record.mask_history for _, record in parts), answers)


class _Identities:
    """Hashes that tell equal prompts apart: 16 bytes of the messages and their number of earlier occurrences."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def __call__(self, messages: Sequence[Message]) -> bytes:
        content = orjson.dumps([(message.role, message.content) for message in messages])
        digest = hashlib.blake2b(content, digest_size=16).digest()
        self._seen[digest] += 1
        return hashlib.blake2b(b"%d %b" % (self._seen[digest], digest), digest_size=16).digest()


class _Index:
    """A run's journal by prompt: `offsets` maps the identity of a prompt to its record's place, in input order."""

    def __init__(self, folder: Path) -> None:
        identity = _Identities()
        records = ((entry.line, entry.messages) for entry in journal.read(folder) if isinstance(entry, Record))
        keys = {line: identity(messages) for line, messages in records}
        self._path = folder / journal.NAME
        places = journal.offsets(folder)
        self.offsets = {key: places[line] for line, key in keys.items()}

    def record(self, offset: int) -> Record:
        with self._path.open("rb") as file:
            file.seek(offset)
            entry = load(file.readline())
        assert isinstance(entry, Record)
        return entry


def _check_names(folders: Sequence[Path], names: Sequence[str | None]) -> None:
    if len({path.resolve() for path in folders}) < len(folders):
        raise RunError("a run cannot be merged with itself; name each folder once")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RunError(f"two of the runs are named {twice[0]}, and rows name their run; rename a folder")


def require_comparable(ours: Manifest, folder: object, theirs: Manifest, other: object) -> None:
    """Check that the rewards of two runs, named `folder` and `other`, are on one scale.

    Raises:
        RunError: they are not, or it is not known.
    """
    for name, path in DECIDES_REWARDS:
        left, right = _at(ours, path), _at(theirs, path)
        if left != right:
            raise RunError(
                f"{folder} and {other} cannot be merged: {name} differs ({left}, {right}), "
                "so their rewards cannot be compared"
            )
        if left is None and path[-1] == "sha256":
            raise RunError(
                f"{folder} and {other} cannot be merged: the server that scored them does not tell {name}, "
                "so it is unknown whether their rewards can be compared"
            )


def _at(body: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = body
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
