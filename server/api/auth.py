"""API keys: reading them from the settings, and checking the key of a request.

Only SHA-256 digests are kept. A fast hash is enough because keys are meant to be long and random; it
would not be for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from winnow.clients.text_files import read_entries
from winnow.models.errors import SettingsError
from winnow.server.settings import Settings

_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_KEY = re.compile(r"[!-~]{8,512}")


class ApiKeys:
    """The keys that may use a server; an empty set lets everyone in."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests = tuple(dict.fromkeys(digests))

    def __len__(self) -> int:
        return len(self._digests)

    @classmethod
    def of(cls, settings: Settings) -> ApiKeys:
        """Read the keys of `api_keys` and of the file `api_keys_file`.

        Raises:
            SettingsError: the file cannot be read or is empty, or a key is malformed; the message never
            shows a key.
        """
        keys = [key.get_secret_value() for key in settings.api_keys]
        digests = [_digest(key, f"api_keys: key {number}") for number, key in enumerate(keys, start=1)]
        if settings.api_keys_file:
            digests += _read(settings.api_keys_file)
        return cls(digests)

    def holder(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """Return a short name for the key in the `Authorization: Bearer` header, or None without a valid key.

        The name is the start of the key's digest, safe to log. The comparison takes the same time for
        every key. Two `Authorization` headers count as none, because proxies differ in which one they
        use.
        """
        values = [value for name, value in headers if name == b"authorization"]
        if len(values) != 1:
            return None
        scheme, _, key = values[0].partition(b" ")
        digest = hashlib.sha256(key.strip(b" ")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest.hex()[:8] if any(matches) and scheme.lower() == b"bearer" else None


def _read(path: Path) -> list[bytes]:
    try:
        entries = read_entries(path)
    except ValueError as error:
        raise SettingsError(f"api_keys_file {error}") from None
    if not entries:
        raise SettingsError(f"api_keys_file {path} contains no key; add one, or remove the setting")
    return [_digest(key, f"api_keys_file {path}, line {number}") for number, key in entries]


def _digest(key: str, where: str) -> bytes:
    if hashed := _HASHED.fullmatch(key):
        return bytes.fromhex(hashed[1])
    if not _KEY.fullmatch(key):
        raise SettingsError(f"{where}: a key is 8 to 512 printable ASCII characters without spaces")
    return hashlib.sha256(key.encode()).digest()
