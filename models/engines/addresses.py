"""Addresses of model servers, as settings write them.

`http://host:8000` is a vLLM server: of a reward model its `/classify`, of a policy its `/v1/completions`. A chat model
of an OpenAI-compatible API is a reward model as `judge:http://host:8000/v1`, and a policy as `chat:http://host:8000/v1`.
Several URLs with commas between them are a pool: servers of one model, any of which may be asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import httpx

AddressKind = Literal["classify", "judge", "completions", "chat"]
"""The API of a model server."""
JUDGE, CHAT = "judge:", "chat:"
"""Stand before the URL of a judge, and of a chat model that answers."""
PREFIXES: Mapping[str, AddressKind] = {JUDGE: "judge", CHAT: "chat"}
CHAT_APIS = ("judge", "chat")
"""Kinds whose URL ends in /v1, as OpenAI's clients have it."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXAMPLES = {
    "classify": "http://HOST:PORT (a vLLM server's /classify) or judge:http://HOST:PORT/v1 (a chat model that grades)",
    "completions": "http://HOST:PORT (a vLLM server's /v1/completions) or chat:http://HOST:PORT/v1 (a chat model)",
}
_PATHS = {"classify": ("/classify", "/v1"), "completions": ("/completions", "/v1")}


class Address(NamedTuple):
    """The kind of API that serves a model, and the URL before its paths, without a key or a slash at its end."""

    kind: AddressKind
    url: str

    @property
    def models(self) -> str:
        """The URL that lists the served models."""
        return f"{self.url}/models" if self.kind in CHAT_APIS else f"{self.url}/v1/models"


def is_remote(checkpoint: str) -> bool:
    """Whether `checkpoint` is the address of a model server, or of several, rather than a folder or a hub id."""
    return checkpoint.startswith(tuple(PREFIXES)) or _SCHEME.match(checkpoint) is not None


def parse_addresses(checkpoint: str, plain: Literal["classify", "completions"] = "classify") -> tuple[Address, ...]:
    """Return the addresses that `checkpoint` has, one or several of one kind; `is_remote` holds for it.

    A URL without a prefix is of the kind `plain`, or of the first one's.

    Raises:
        ValueError: one is malformed, given twice, of another kind than the first, or holds a password; the message does
            not repeat it.
    """
    parts = [part.strip() for part in checkpoint.split(",")]
    prefix = next((name for name in PREFIXES if parts[0].startswith(name)), "")
    found = [parse_address(prefix + part if _SCHEME.match(part) else part, plain) if part else None for part in parts]
    addresses = tuple(one for one in found if one)
    if len(addresses) < len(found):
        raise ValueError("there is nothing between two commas; write http://HOST:PORT,http://HOST:PORT")
    if len({one.kind for one in addresses}) > 1:
        raise ValueError("the servers of a pool are of one kind; begin each URL alike")
    if len(set(addresses)) < len(addresses):
        raise ValueError("one URL is given twice; name each server of a pool once")
    return addresses


def parse_address(checkpoint: str, plain: Literal["classify", "completions"] = "classify") -> Address:
    """Return the one address that `checkpoint` is; see `parse_addresses`."""
    prefix = next((name for name in PREFIXES if checkpoint.startswith(name)), "")
    text, examples = checkpoint.removeprefix(prefix), _EXAMPLES[plain]
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        raise ValueError(f"it is not a URL; write {examples}") from None
    if "@" in text:
        raise ValueError("a URL with a user name or password is not accepted; give the key in key_file")
    if parts.scheme.lower() not in ("http", "https") or not host or port == 0 or re.search(r"\s", text):
        raise ValueError(f"it is not a URL of http or https; write {examples}")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("a URL with ? or # is not accepted; write the part before")
    kind = PREFIXES[prefix] if prefix else plain
    if (kind == "chat") if plain == "classify" else (kind == "judge"):
        raise ValueError(f"{prefix} is not for this model; write {examples}")
    path = parts.path.rstrip("/")
    if kind in CHAT_APIS:
        path = path.removesuffix("/chat/completions") or "/v1"
    else:
        for end in _PATHS[plain]:
            path = path.removesuffix(end)
    return Address(kind, f"{parts.scheme.lower()}://{parts.netloc}{path}")
