"""The rows of a store: an answer as it was served, as it is written, and as it is read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from winnow.models.types import Selection
from winnow.server.distill.records import Record


@dataclass(frozen=True, slots=True)
class Served:
    """An answer as it was served, on its way to the writer: nothing of it is copied or computed for that.

    `created` is seconds since 1970, `owner` the short name of the caller's API key, `refusal` the text that was
    returned in place of the answer. `user` and `identifier` are the request's; only their digests are stored.
    """

    id: str
    created: int
    model: str
    selection: Selection
    n: int
    temperature: float
    owner: str | None = None
    user: str | None = None
    identifier: str | None = None
    refusal: str | None = None

    @property
    def characters(self) -> int:
        """The length of its texts, about what it holds of memory."""
        dialog = sum(len(message.content) for message in self.selection.prompt.messages)
        return dialog + sum(len(item.candidate.text) for item in self.selection.scored)


@dataclass(frozen=True, slots=True)
class NewRow:
    """An answer as it is written; see the migrations for the columns. `record` is an entry of a journal."""

    id: str
    created: int
    expires: int | None
    owner: str | None
    user_digest: str | None
    identifier_digest: str | None
    model: str
    refusal: str | None
    record: str

    @property
    def people(self) -> set[str]:
        """The digests of the people whom it is about."""
        return {self.user_digest, self.identifier_digest} - {None}  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer as it is read back. The line of its `record` is its number in the store."""

    number: int
    id: str
    created: int
    expires: int | None
    owner: str | None
    model: str
    refusal: str | None
    origin: int
    people: frozenset[str]
    record: Record


@dataclass(frozen=True, slots=True)
class Origin:
    """The causes of answers and scores, as a run's manifest has it, and the number of answers from it."""

    number: int
    manifest: dict[str, Any]
    selections: int


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A folder that was written from the store. `created` is seconds since 1970."""

    created: int
    path: str
    formats: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The effect of forgetting a user: what was deleted, and the exports that still hold their words."""

    selections: int
    exports: tuple[ExportedFile, ...]
    annotations: int = 0


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """The content of a store. Times are seconds since 1970, None in an empty one."""

    selections: int
    expired: int
    oldest: int | None
    newest: int | None
    exports: int
    forgotten: int
    bytes: int
    batches: int
    annotations: int
