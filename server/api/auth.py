"""API keys and their roles: reading them from the settings, and finding out who sent a request.

Only SHA-256 digests of keys are kept. A fast hash is enough because keys are meant to be long and random; it would not
be for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from starlette.types import Scope

from winnow.clients.text_files import read_entries
from winnow.models.errors import SettingsError
from winnow.server.settings import Settings

Role = Literal["use", "annotate", "operate"]
"""`use` asks for answers, `annotate` chooses between recorded ones, `operate` manages what the server keeps."""
ROLES: tuple[Role, ...] = get_args(Role)
BARE_ROLES: frozenset[Role] = frozenset({"use"})
"""The roles of a key of which none are given."""
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_KEY = re.compile(r"[!-~]{8,512}")
_NAME = re.compile(r"[\w.@+-]{1,64}")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    `holder` is the start of the key's digest, safe to log; None where no key is needed. `name` is the person's or the
    program's, by which annotations are kept: another key with the same name is the same annotator.
    """

    name: str
    roles: frozenset[Role]
    holder: str | None = None


ANYONE = Caller("anonymous", frozenset(ROLES))
"""The caller of a server without keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that may use a server: its SHA-256 digest, its roles, and the name of its holder if there is one."""

    digest: bytes
    roles: frozenset[Role] = BARE_ROLES
    name: str | None = None

    @property
    def caller(self) -> Caller:
        """The caller who shows this key."""
        holder = self.digest.hex()[:8]
        return Caller(self.name or holder, self.roles, holder)


class ApiKeys:
    """The keys that may use a server; an empty set lets everyone in."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple({key.digest: key for key in keys}.values())

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def of(cls, settings: Settings) -> ApiKeys:
        """Read the keys of `api_keys` and of the file `api_keys_file`.

        Raises:
            SettingsError: the file cannot be read or is empty, or a key, a role or a name is malformed, or a key has
            two sets of roles; the message never shows a key.
        """
        given = [key.get_secret_value() for key in settings.api_keys]
        keys = [Key(_digest(key, f"api_keys: key {number}")) for number, key in enumerate(given, start=1)]
        if settings.api_keys_file:
            keys += _read(settings.api_keys_file)
        return cls(keys)

    def caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | None:
        """Return who shows the key in the `Authorization: Bearer` header; None without a valid key.

        The comparison takes the same time for every key. Two `Authorization` headers count as none, because proxies
        differ in which one they use.
        """
        values = [value for name, value in headers if name == b"authorization"]
        if len(values) != 1:
            return None
        scheme, _, key = values[0].partition(b" ")
        digest = hashlib.sha256(key.strip(b" ")).digest()
        found = [known for known in self._keys if hmac.compare_digest(digest, known.digest)]
        return found[0].caller if found and scheme.lower() == b"bearer" else None


def caller(scope: Scope) -> Caller:
    """Return who sent a request, as the middleware has found out."""
    found: Caller = scope.get("winnow.caller", ANYONE)
    return found


def _read(path: Path) -> list[Key]:
    try:
        entries = read_entries(path)
    except ValueError as error:
        raise SettingsError(f"api_keys_file {error}") from None
    if not entries:
        raise SettingsError(f"api_keys_file {path} contains no key; add one, or remove the setting")
    keys = [_entry(entry, f"api_keys_file {path}, line {number}") for number, entry in entries]
    for (number, _), key in zip(entries, keys, strict=True):
        if any(other.digest == key.digest and other != key for other in keys):
            raise SettingsError(f"api_keys_file {path}, line {number}: this key has other roles on another line")
    return keys


def _entry(entry: str, where: str) -> Key:
    """Read a line: the key, then its roles with commas, then a name; both may be left out."""
    key, roles, name = (*entry.split(maxsplit=2), "", "")[:3]
    chosen = frozenset(role for role in ROLES if role in roles.split(",")) if roles else BARE_ROLES
    if roles and (len(chosen) != len(set(roles.split(","))) or not chosen):
        raise SettingsError(
            f"{where}: behind the key stand its roles, such as use,annotate; there are {', '.join(ROLES)}"
        )
    if name and not _NAME.fullmatch(name):
        raise SettingsError(f"{where}: a name is 1 to 64 letters, digits and . _ @ + -")
    return Key(_digest(key, where), chosen, name or None)


def _digest(key: str, where: str) -> bytes:
    if hashed := _HASHED.fullmatch(key):
        return bytes.fromhex(hashed[1])
    if not _KEY.fullmatch(key):
        raise SettingsError(f"{where}: a key is 8 to 512 printable ASCII characters without spaces")
    return hashlib.sha256(key.encode()).digest()
