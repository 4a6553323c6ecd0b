"""Opens stores: by their place alone, or as a server's settings have them, with its recorder."""

from __future__ import annotations

import functools
from pathlib import Path

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import SettingsError
from winnow.models.types import CombinerName
from winnow.server.distill.identity import served_identity
from winnow.server.settings import Settings
from winnow.server.store.database import Database
from winnow.server.store.location import Location, location, require_place
from winnow.server.store.preparing import Preparer
from winnow.server.store.pseudonyms import Pseudonyms, read_key
from winnow.server.store.recorder import Recorder
from winnow.server.store.redaction import Redactor
from winnow.server.store.sqlite import SqliteDatabase
from winnow.server.store.store import Store


def database(place: Location) -> Database:
    """Return a connection to the database at `place`.

    Raises:
        StoreError: it cannot be used.
        ModuleNotFoundError: its driver is not installed.
    """
    if place.kind == "sqlite":
        return SqliteDatabase(place.path)
    from winnow.server.store.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(place.text)


def open_store(place: Location, pseudonyms: Pseudonyms | None = None) -> Store:
    """Return the store at `place`, made if it is new; with `pseudonyms` their key is checked.

    Raises:
        StoreError: it cannot be used.
    """
    return Store(database(place), pseudonyms.check if pseudonyms else None)


def open_existing(place: Location, pseudonyms: Pseudonyms | None = None) -> Store:
    """Return the store at `place`, which is not made.

    Raises:
        SettingsError: there is none.
        StoreError: it cannot be used.
    """
    if place.kind == "sqlite" and not place.path.is_file():
        raise SettingsError(f"there is no store at {place}")
    return open_store(place, pseudonyms)


def key_of(place: Location, file: Path | None, *, make: bool = False) -> Pseudonyms:
    """Return the digests of the store at `place`, by the key in `file` or in the file beside it.

    Raises:
        SettingsError: there is no such file, or it holds no key.
    """
    path = file or place.key_file
    if path is None:
        raise SettingsError(
            "store_key_file: a store by URL needs a file for the key by which users' ids are hashed; name one, the "
            "same for every server on this store"
        )
    return read_key(path, make=make)


def require_store(settings: Settings) -> None:
    """Check what can be known of the settings' store before engines start.

    Raises:
        SettingsError: it cannot be where the settings say.
        ModuleNotFoundError: the driver for its URL is not installed.
    """
    if settings.store is not None:
        place = location(settings.store)
        require_place(place)
        key_of(place, settings.store_key_file, make=True)


def recorder(settings: Settings, template: ChatTemplate, combiner: CombinerName) -> Recorder | None:
    """Return the recorder of a server with these settings, whose models are there; None without a store.

    All weights are read for the origin of what it records, about a second for each GiB: call it once, at the start,
    while the files are still those that were loaded. A store that cannot be opened is no error here: the server answers
    without it, and says so.

    Raises:
        SettingsError: the place or the key file cannot be right.
        CheckpointError: a model is missing.
    """
    if settings.store is None:
        return None
    require_store(settings)
    place = location(settings.store)
    pseudonyms = key_of(place, settings.store_key_file)
    return Recorder(
        place.kind,
        settings.record,
        functools.partial(open_store, place, pseudonyms),
        {} if settings.record == "off" else served_identity(settings, template, combiner),
        Preparer(Redactor(settings.redact), pseudonyms, settings.retention_days),
    )
