"""Where an export's prompts come from: a run, alone or with the answers of other runs ("the best of all iterations").

Texts stay on the disk: of the other runs an index is held, 16 bytes of hash and a place in the journal for each prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from winnow.models.errors import RunError
from winnow.models.types import Message
from winnow.server.distill import journal, manifest
from winnow.server.distill.export.answered import AnsweredPrompt, Part, answered, joined
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.records import Problem, Record, load

Entry = AnsweredPrompt | Problem
DECIDES_REWARDS = (
    ("the safety model's hash", ("models", "safety", "sha256")),
    ("the helpfulness model's hash", ("models", "helpfulness", "sha256")),
    ("the combiner", ("settings", "combiner")),
    ("safety_scale", ("settings", "safety_scale")),
    ("safety_bias", ("settings", "safety_bias")),
    ("helpfulness_scale", ("settings", "helpfulness_scale")),
    ("helpfulness_bias", ("settings", "helpfulness_bias")),
)
"""What must be equal in two manifests for their runs' rewards to be on one scale."""


class Source:
    """A run's entries in the order of its input; may be iterated again and again.

    With `merge`, prompts whose messages are equal are one prompt with the answers of all runs: the j-th of equal prompts in one
    run goes with the j-th in the others. The prompts that only other runs answered follow, in the order of those runs.

    Raises:
        RunError: a folder holds no run, two are one or have one name, or their rewards cannot be compared.
    """

    def __init__(self, folder: Path, merge: Sequence[Path] = ()) -> None:
        self._folder = folder
        folders = (folder, *merge)
        self.manifests: list[Manifest] = [manifest.load(path) for path in folders]
        self.names: list[str | None] = [path.resolve().name for path in folders] if merge else [None]
        _check_names(folders, self.names)
        for other, path in zip(self.manifests[1:], merge, strict=True):
            _check_comparable(self.manifests[0], folder, other, path)
        self._others = [_Places(path) for path in merge]

    def __iter__(self) -> Iterator[Entry]:
        if not self._others:
            for entry in journal.read(self._folder):
                yield entry if isinstance(entry, Problem) else answered(None, entry)
            return
        left = [dict(other.of) for other in self._others]
        identity = _Identities()
        for entry in journal.read(self._folder):
            if isinstance(entry, Problem):
                yield entry
            else:
                yield joined([(self.names[0], entry), *self._taken(left, identity(entry.messages))])
        for first, own in enumerate(left):
            for key in list(own):
                yield joined(self._taken(left, key, first))

    def _taken(self, left: list[dict[bytes, int]], key: bytes, first: int = 0) -> list[Part]:
        """What the other runs from `first` on still have for a prompt; it is crossed off."""
        parts: list[Part] = []
        for number in range(first, len(left)):
            place = left[number].pop(key, None)
            if place is not None:
                parts.append((self.names[number + 1], self._others[number].record(place)))
        return parts


class _Identities:
    """Tells equal prompts apart: 16 bytes for the messages and which of their occurrences this is."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def __call__(self, messages: Sequence[Message]) -> bytes:
        content = orjson.dumps([(message.role, message.content) for message in messages])
        digest = hashlib.blake2b(content, digest_size=16).digest()
        self._seen[digest] += 1
        return hashlib.blake2b(b"%d %b" % (self._seen[digest], digest), digest_size=16).digest()


class _Places:
    """A run's journal by prompt: `of` has the place of each record, in the order of the input."""

    def __init__(self, folder: Path) -> None:
        identity = _Identities()
        records = ((entry.line, entry.messages) for entry in journal.read(folder) if isinstance(entry, Record))
        keys = {line: identity(messages) for line, messages in records}
        self._path = folder / journal.NAME
        places = journal.places(folder)
        self.of = {key: places[line] for line, key in keys.items()}

    def record(self, place: int) -> Record:
        with self._path.open("rb") as file:
            file.seek(place)
            entry = load(file.readline())
        assert isinstance(entry, Record)
        return entry


def _check_names(folders: Sequence[Path], names: Sequence[str | None]) -> None:
    if len({path.resolve() for path in folders}) < len(folders):
        raise RunError("a run cannot be merged with itself; name each folder once")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RunError(f"two of the runs are named {twice[0]}, and rows name their run; rename a folder")


def _check_comparable(ours: Manifest, folder: Path, theirs: Manifest, other: Path) -> None:
    for name, path in DECIDES_REWARDS:
        left, right = _at(ours, path), _at(theirs, path)
        if left != right:
            raise RunError(
                f"{folder} and {other} cannot be merged: {name} differs ({left}, {right}), so their rewards cannot be compared"
            )
        if left is None and path[-1] == "sha256":
            raise RunError(
                f"{folder} and {other} cannot be merged: a server that does not tell {name} scored them, so nobody knows "
                "whether their rewards can be compared"
            )


def _at(body: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = body
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
