"""API keys: where they come from and who holds one.

Only SHA-256 digests are kept. ApiKeys are meant to be long and random, so that a fast hash is enough; passwords are not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from winnow.models.errors import SettingsError
from winnow.server.settings import Settings

_COMMENT = re.compile(r"(^|\s)#.*")
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_KEY = re.compile(r"[!-~]{8,512}")


class ApiKeys:
    """The set of keys that may use a server; an empty one lets everybody in."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests = tuple(dict.fromkeys(digests))

    def __len__(self) -> int:
        return len(self._digests)

    @classmethod
    def of(cls, settings: Settings) -> ApiKeys:
        """Read the keys of the settings and of the key file.

        Raises:
            SettingsError: the file cannot be read or is empty, or a key is malformed; no message shows a key.
        """
        keys = [key.get_secret_value() for key in settings.api_keys]
        digests = [_digest(key, f"api_keys: key {number}") for number, key in enumerate(keys, start=1)]
        if settings.api_keys_file:
            digests += _read(settings.api_keys_file)
        return cls(digests)

    def holder(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """A short name for the key that the request's `Authorization: Bearer` header shows, or None if it shows no valid one.

        The name is the start of the key's digest: fit for logs. The comparison takes the same time for every key, and two
        headers are as good as none: proxies differ in which of them they believe.
        """
        shown = [value for name, value in headers if name == b"authorization"]
        if len(shown) != 1:
            return None
        scheme, _, key = shown[0].partition(b" ")
        digest = hashlib.sha256(key.strip(b" ")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest.hex()[:8] if any(matches) and scheme.lower() == b"bearer" else None


def _read(path: Path) -> list[bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"api_keys_file {path} cannot be read: {reason}") from None
    digests = [
        _digest(key, f"api_keys_file {path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if (key := _COMMENT.sub("", line).strip())
    ]
    if not digests:
        raise SettingsError(f"api_keys_file {path} holds no key; without one nobody, or everybody, would be let in")
    return digests


def _digest(key: str, where: str) -> bytes:
    if hashed := _HASHED.fullmatch(key):
        return bytes.fromhex(hashed[1])
    if not _KEY.fullmatch(key):
        raise SettingsError(f"{where}: a key is 8 to 512 printable ASCII characters without spaces")
    return hashlib.sha256(key.encode()).digest()
