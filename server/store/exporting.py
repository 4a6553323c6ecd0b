"""Exports of a store: its answers as one run, or as the runs that each origin is, through the exports of runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from winnow.models.errors import RunError
from winnow.models.statistics import Moments
from winnow.server.annotation.exporting import Choices, rows, write_card
from winnow.server.annotation.exporting import write as write_choices
from winnow.server.distill.export import FILES, ExportOptions, Format, Written
from winnow.server.distill.export.contents import table
from winnow.server.distill.export.formats import chat_format, named, written
from winnow.server.distill.export.openai_batch import model
from winnow.server.distill.export.sources import ExportEntry, merged, require_comparable
from winnow.server.distill.export.writers import Row, json_line
from winnow.server.distill.manifest import Manifest
from winnow.server.store.location import Location
from winnow.server.store.opening import open_existing
from winnow.server.store.rows import Origin
from winnow.server.store.store import Store

PREFIX = "store:"
"""Before the place of a store, where a run's folder could stand as well."""
DOWNLOAD = "download"
"""The path of an export that was sent over HTTP."""
CHUNK = 65_536
"""Bytes of a download that are sent at once, about."""


class StoredAnswers:
    """The answers of a store as a source of exports, up to the newest one of now; see `Source`.

    Raises:
        RunError: there is no answer, or not of the `origin` that is named; or their rewards cannot be compared.
    """

    def __init__(self, store: Store, origin: int | None = None) -> None:
        self._store = store
        origins = _chosen(store.origins(), origin)
        self._names = {one.number: f"origin-{one.number}" if len(origins) > 1 else None for one in origins}
        self._now = int(time.time())
        self._until = store.last_number()
        self.manifests: list[Manifest] = [one.manifest for one in origins]
        self.names: list[str | None] = list(self._names.values())

    @property
    def people(self) -> set[str]:
        """The digests of everyone whose answers these are."""
        return self._store.people(self._names, self._now, self._until)

    def __iter__(self) -> Iterator[ExportEntry]:
        for stored in self._store.records(self._names, self._now, self._until):
            yield merged([(self._names[stored.origin], stored.record)])


def _chosen(origins: Sequence[Origin], wanted: int | None) -> list[Origin]:
    chosen = [origin for origin in origins if wanted in (None, origin.number)]
    if not chosen:
        numbers = ", ".join(str(origin.number) for origin in origins)
        raise RunError(f"there is no origin {wanted}; there are {numbers}" if origins else "the store has no answers")
    newest = chosen[-1]
    for other in chosen[:-1]:
        try:
            require_comparable(
                newest.manifest, f"origin {newest.number}", other.manifest, f"origin {other.number} of the store"
            )
        except RunError as error:
            raise RunError(f"{error}. Name one with --origin {newest.number}; winnow store status lists them") from None
    return chosen


def folder_of(place: Location) -> Path:
    """Return the folder that a store is exported into by default: beside its file, else in the current folder."""
    if place.kind == "sqlite":
        return place.path.with_name(f"{place.path.stem}-export")
    return Path("store-export")


def export(
    place: Location, formats: Sequence[Format], options: ExportOptions, out: Path | None, origin: int | None = None
) -> list[Written]:
    """Write the data files of the store at `place`, as of a run, and note in the store whose words they hold.

    Raises:
        SettingsError, StoreError: there is no such store, or it cannot be used.
        RunError: nothing can be exported so, or a file cannot be written.
        CheckpointError: the tokenizer cannot be loaded.
    """
    if options.merge:
        raise RunError("a store is exported without --merge: it has all of its runs already")
    wanted = named(formats, options, of_store=True)
    target = folder_of(place) if out is None else out
    store = open_existing(place)
    try:
        return _exported(store, wanted, options, target, origin)
    finally:
        store.close()


def _exported(
    store: Store, wanted: tuple[Format, ...], options: ExportOptions, target: Path, origin: int | None
) -> list[Written]:
    """Write answers, people's choices between them, or both."""
    now = int(time.time())
    choices = Choices(store, now, with_questioned=options.with_questioned, origin=origin)
    others = tuple(kind for kind in wanted if kind != "annotations")
    people: set[str] = set()
    if others:
        answers = StoredAnswers(store, origin)
        chat = chat_format(None, answers.manifests[0], options)
        people |= answers.people
    if "annotations" in wanted:
        choices.require_some()
        people |= choices.people
    # Before the files: an export that is cut short has written some of them.
    store.note_export(str(target.resolve()), wanted, people, now)
    parts = [write_choices(choices, target, options.margin)] if "annotations" in wanted else []
    told = [Written(target / FILES[part.format].name, part.rows) for part in parts]
    if others:
        return [*written(answers, chat, others, options, target, parts), *told]
    write_card(parts[0], store, options, target)
    return told


class Download:
    """One format of an export with its default options, as JSON Lines; `people` are those whose words it holds.

    It has `store` for itself, and closes it in the end.

    Raises:
        RunError: nothing can be exported so.
        StoreError: the store cannot be used.
    """

    def __init__(self, store: Store, kind: Format, origin: int | None = None) -> None:
        self._store = store
        try:
            self._rows, self.people = (
                _choices(store, origin) if kind == "annotations" else _answers(store, kind, origin)
            )
        except BaseException:
            store.close()
            raise

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines, several at once."""
        chunk = bytearray()
        for row in self._rows:
            chunk += json_line(row)
            if len(chunk) >= CHUNK:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk)

    def close(self) -> None:
        """End its connection to the store."""
        self._store.close()


def _answers(store: Store, kind: Format, origin: int | None) -> tuple[Iterator[Row], set[str]]:
    """Return the rows of a format, and the people whose words they hold."""
    answers, options = StoredAnswers(store, origin), ExportOptions()
    manifest = answers.manifests[0]
    contents = table(kind, options, Moments(), chat_format(None, manifest, options), model(manifest))
    return itertools.chain.from_iterable(map(contents.rows, answers)), answers.people


def _choices(store: Store, origin: int | None) -> tuple[Iterator[Row], set[str]]:
    choices = Choices(store, int(time.time()), origin=origin)
    choices.require_some()
    return rows(choices), choices.people
