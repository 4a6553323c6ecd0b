"""The place of a store: a file, or the URL of a PostgreSQL database, whose password is never shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from winnow.models.errors import SettingsError

URL_SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Location:
    """A place of a store: `text` is a path, or a URL, which may have a password; `str()` shows it without one."""

    text: str

    @property
    def kind(self) -> Literal["sqlite", "postgresql"]:
        """The database that is there."""
        return "postgresql" if "://" in self.text else "sqlite"

    @property
    def path(self) -> Path:
        """The file of an SQLite store."""
        assert self.kind == "sqlite"
        return Path(self.text)

    @property
    def key_file(self) -> Path | None:
        """The default place of the key for digests: beside an SQLite file; None for a database by URL."""
        return self.path.with_name(f"{self.path.name}.key") if self.kind == "sqlite" else None

    def __str__(self) -> str:
        if self.kind == "sqlite":
            return self.text
        parts = urlsplit(self.text)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def location(text: str) -> Location:
    """Return the place that a setting or an argument names.

    Raises:
        SettingsError: it is neither a file's path nor a PostgreSQL URL.
    """
    place = Location(text.removeprefix("sqlite:///") if text.startswith("sqlite:///") else text)
    if not text.strip():
        raise SettingsError("store: name a file such as winnow.db, or postgresql://USER@HOST/DATABASE")
    if place.kind == "postgresql" and (scheme := text.partition("://")[0]) not in URL_SCHEMES:
        raise SettingsError(
            f"store: {scheme[:20]}:// is not served; name a file such as winnow.db, or postgresql://USER@HOST/DATABASE"
        )
    return place


def require_place(place: Location) -> None:
    """Check what can be known of a place before engines start, without opening the store.

    Raises:
        SettingsError: the folder of the file is missing or cannot be written to, or the place is no file.
        ModuleNotFoundError: the driver for the URL is not installed.
    """
    if place.kind == "postgresql":
        import psycopg  # noqa: F401, an extra

        return
    path = place.path
    if path.is_dir():
        raise SettingsError(f"store: {path} is a folder; name a file in it, such as {path / 'winnow.db'}")
    if not path.parent.is_dir():
        raise SettingsError(f"store: the folder {path.parent} does not exist; make it, or name another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SettingsError(f"store: {path} cannot be written to; give this user the right to, or name another file")
