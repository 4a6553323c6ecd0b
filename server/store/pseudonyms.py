"""Digests in place of people: users and API keys are stored as keyed hashes, whose key is not in the store."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from winnow.models.errors import SettingsError

_KEY = re.compile(r"[0-9a-f]{64}")


class Pseudonyms:
    """Keyed hashes (HMAC-SHA-256) of names; without the key, nobody can look up a name that they guess."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of_user(self, name: str) -> str:
        """Return the digest of a request's `user` or `safety_identifier`."""
        return self._digest("user", name)

    def of_owner(self, name: str) -> str:
        """Return the digest of the short name of an API key."""
        return self._digest("owner", name)

    def lot(self, pair: int, annotator: int) -> bool:
        """Draw which side of a pair an annotator sees on the left: always the same, and nobody else can tell."""
        return int(self._digest("lot", f"{pair}\0{annotator}")[0], 16) >= 8

    @property
    def check(self) -> str:
        """A digest that tells this key from others."""
        return self._digest("check", "")

    def _digest(self, kind: str, name: str) -> str:
        return hmac.new(self._key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()


def read_key(path: Path, *, make: bool) -> Pseudonyms:
    """Read the key from its file, readable by its owner alone, which is made first if `make` says so.

    Raises:
        SettingsError: the file is missing, unreadable, or holds no key.
    """
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                _make(path)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        about = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"store_key_file: {path} cannot be read: {about}; it is made beside the store") from None
    if not _KEY.fullmatch(text):
        raise SettingsError(f"store_key_file: {path} holds no key; one is 64 hexadecimal digits")
    return Pseudonyms(bytes.fromhex(text))


def _make(path: Path) -> None:
    """Write a new key whole or not at all: a crash must not leave an empty file that the next start refuses."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, f"{secrets.token_hex(32)}\n".encode())
        os.fsync(file)
        os.link(temporary, path)  # fails if another process was first
    finally:
        os.close(file)
        temporary.unlink(missing_ok=True)
