"""Reward models behind a URL: their addresses, the way to them, and what their servers say of themselves.

`http://host:8000` is a vLLM server's `/classify`, and `judge:http://host:8000/v1` a chat model of an OpenAI-compatible
API. This module has what is needed before an event loop runs; `winnow.models.engines.model_server` has the rest.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx

from winnow.models.engines.hub import cached, fetched, is_local
from winnow.models.errors import CheckpointError

logger = logging.getLogger(__name__)

JUDGE = "judge:"
"""Stands before the URL of a judge."""
NEEDED_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "winnow-card.toml")
"""Files of a hub id that a remote model is read by: all but its weights."""
START_PAUSE = 1.0
"""Seconds between two questions to a server that does not answer yet."""
TOLD_EVERY = 10.0
"""Seconds between two messages that a server is waited for."""
CONNECT_SECONDS = 5.0
KEEP_SECONDS = 3.0
"""Longest silence on a connection that is used again; vLLM's server closes its own after 5 s."""
MAX_BYTES = 4 * 2**20
"""Largest answer of a model server that is read."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXAMPLES = "http://HOST:PORT (a vLLM server's /classify) or judge:http://HOST:PORT/v1 (a chat model that grades)"


class Address(NamedTuple):
    """The kind of API that serves a model, and the URL before its paths, without a key or a slash at its end."""

    kind: Literal["classify", "judge"]
    url: str

    @property
    def models(self) -> str:
        """The URL that lists the served models."""
        return f"{self.url}/models" if self.kind == "judge" else f"{self.url}/v1/models"


def is_remote(checkpoint: str) -> bool:
    """Whether `checkpoint` is the address of a model server, rather than a folder or a hub id."""
    return checkpoint.startswith(JUDGE) or _SCHEME.match(checkpoint) is not None


def parse_address(checkpoint: str) -> Address:
    """Return the address that `checkpoint` is; `is_remote` holds for it.

    Raises:
        ValueError: it is malformed, or holds a password; the message does not repeat it.
    """
    is_judge = checkpoint.startswith(JUDGE)
    text = checkpoint.removeprefix(JUDGE)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        raise ValueError(f"it is not a URL; write {_EXAMPLES}") from None
    if "@" in text:
        raise ValueError("a URL with a user name or password is not accepted; give the key in key_file")
    if parts.scheme.lower() not in ("http", "https") or not host or port == 0 or re.search(r"\s", text):
        raise ValueError(f"it is not a URL of http or https; write {_EXAMPLES}")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("a URL with ? or # is not accepted; write the part before")
    path = parts.path.rstrip("/")
    if is_judge:
        path = path.removesuffix("/chat/completions") or "/v1"
    else:
        path = path.removesuffix("/classify").removesuffix("/v1")
    return Address("judge" if is_judge else "classify", f"{parts.scheme.lower()}://{parts.netloc}{path}")


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a model server: its address, a key, httpx's own options, and limits.

    `seconds` bounds one score with all its retries, `start_seconds` the wait for the server at the start, and
    `connections` the requests at once.
    """

    address: Address
    key: str | None = field(default=None, repr=False)
    http_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seconds: float = 60.0
    start_seconds: float = 600.0
    connections: int = 64

    def client_options(self) -> dict[str, Any]:
        """Return the arguments of httpx's clients; redirects are not followed."""
        return {
            "trust_env": False,
            "headers": {"Authorization": f"Bearer {self.key}"} if self.key else {},
            "timeout": httpx.Timeout(self.seconds, connect=min(CONNECT_SECONDS, self.seconds)),
            "limits": httpx.Limits(max_connections=self.connections, keepalive_expiry=KEEP_SECONDS),
            **self.http_options,
        }


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model as its server tells of it: its `name` there, the checkpoint `root`, and the context; None if untold."""

    link: Link
    name: str
    root: str | None = None
    context: int | None = None

    @property
    def checkpoint(self) -> str:
        """The checkpoint's name: the last part of a folder or a hub id, else the model's name."""
        return Path((self.root or self.name).rstrip("/")).name

    def same_as(self, other: RemoteModel) -> bool:
        """Whether a server that told `other` serves this model."""
        return (self.name, self.root, self.context) == (other.name, other.root, other.context)


class NotReady(Exception):
    """The server does not answer yet; the message says why."""


def discover(role: str, link: Link, wanted: str | None) -> RemoteModel:
    """Return the model called `wanted`, or the only one, of a server that is waited for.

    Raises:
        CheckpointError: the server did not answer in time, or does not serve the model.
    """
    begun = told = time.monotonic()
    with httpx.Client(**link.client_options()) as client:
        while True:
            try:
                return read_models(link, _listed(client, link), wanted)
            except NotReady as problem:
                now = time.monotonic()
                if now - begun >= link.start_seconds:
                    raise CheckpointError(
                        f"{role} reward model: the server at {link.address.url} did not answer within "
                        f"{link.start_seconds:g} s: {problem}"
                    ) from None
                if now - told >= TOLD_EVERY or told == begun:
                    logger.info("waiting for the %s reward model at %s: %s", role, link.address.url, problem)
                    told = now + 1e-6
                time.sleep(min(START_PAUSE, max(0.0, link.start_seconds - (now - begun))))
            except ValueError as problem:
                raise CheckpointError(f"{role} reward model: {link.address.url} {problem}") from None


def _listed(client: httpx.Client, link: Link) -> Any:
    """Return the server's list of models; None if it has none to tell.

    Raises:
        NotReady: it does not answer yet.
        ValueError: it answers with something else.
    """
    try:
        with client.stream("GET", link.address.models) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError("answers with more than can be a list of models")
            return listed(link, response.status_code, bytes(body))
    except httpx.HTTPError as error:
        if _is_untrusted(error):  # waiting would not change that
            raise ValueError("has a certificate that is not trusted; name its issuer's in SSL_CERT_FILE") from None
        raise NotReady(in_words(error)) from None


def _is_untrusted(error: httpx.HTTPError) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def listed(link: Link, status: int, body: bytes) -> Any:
    """Return the list of models in an answer; None if the server has no such list.

    Raises:
        NotReady: it does not answer yet.
        ValueError: it answers with something else; the message says what to change.
    """
    if status in (408, 425, 429) or status >= 500:
        raise NotReady(f"it answers with status {status}")
    if status in (401, 403):
        raise ValueError(f"refuses the key (status {status}); give one in key_file")
    if 300 <= status < 400:
        raise ValueError(f"answers with a redirect (status {status}), which is not followed; give the final URL")
    if status == 404 and link.address.kind == "judge":
        return None
    if status != 200:
        raise ValueError(f"is no model server: /v1/models has status {status}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("is no model server: its /v1/models is not JSON") from None


def read_models(link: Link, answer: Any, wanted: str | None) -> RemoteModel:
    """Return the model called `wanted`, or the only one, in a list of models.

    Raises:
        ValueError: there is none, or there are several; the message says what to change.
    """
    if answer is None:
        if wanted is None:
            raise ValueError("does not list its models; name one in the setting model")
        return RemoteModel(link, wanted)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in data):
        raise ValueError("is no model server: its /v1/models has no list of models")
    if not data:
        raise ValueError("serves no model")
    found = [one for one in data if wanted in (None, one["id"])]
    if not found:
        raise ValueError(f"does not serve {_shown(str(wanted))}, but {_names(data)}; is the setting model right?")
    if len(found) > 1:
        raise ValueError(f"serves {_names(data)}; name one in the setting model")
    root, context = found[0].get("root"), found[0].get("max_model_len")
    return RemoteModel(
        link,
        found[0]["id"],
        root if isinstance(root, str) else None,
        context if isinstance(context, int) and context > 0 else None,
    )


def _names(data: list[dict[str, Any]]) -> str:
    shown = ", ".join(_shown(one["id"]) for one in data[:3])
    return f"{shown} and others" if len(data) > 3 else shown


def _shown(name: str) -> str:
    """Return a model's name, shortened, and on one line whatever a server calls it."""
    return "".join(sign if sign.isprintable() else "?" for sign in name[:80])


def in_words(error: httpx.HTTPError) -> str:
    """Return what went wrong on the way to a server; nothing of the request is in it."""
    if _is_untrusted(error):
        return "its certificate is not trusted"
    match error:
        case httpx.ProxyError():
            return "the proxy does not connect"
        case httpx.ConnectTimeout() | httpx.ConnectError():
            return "it cannot be connected to"
        case httpx.TimeoutException():
            return "it does not answer in time"
        case httpx.ReadError() | httpx.WriteError() | httpx.RemoteProtocolError() | httpx.CloseError():
            return "it closes the connection"
    return f"the connection fails ({type(error).__name__})"


def require_folder(role: str, configured: str) -> Path:
    """Return the folder `configured` of a model's tokenizer.

    Raises:
        CheckpointError: there is none.
    """
    if not Path(configured).is_dir():
        raise CheckpointError(f"{role} reward model: no such folder: {configured}")
    return Path(configured)


def model_folder(role: str, configured: str | None, remote: RemoteModel) -> Path:
    """Return a folder with the tokenizer and config.json of a model: `configured`, or the server's own checkpoint.

    A hub id that is configured is fetched, without weights. One that only the server names is looked up in the cache.

    Raises:
        CheckpointError: there is none; the message names the flag.
    """
    if configured is not None:
        if not is_local(configured):
            return fetched(configured, NEEDED_FILES)
        return require_folder(role, configured)
    root = remote.root
    folder = None
    if root and (Path(root) / "config.json").is_file():
        folder = Path(root)
    elif root and re.fullmatch(r"[\w.-]+/[\w.-]+", root):
        folder = cached(root, NEEDED_FILES)
    if folder is None:
        raise CheckpointError(
            f"{role} reward model: the tokenizer of {remote.checkpoint}, which {remote.link.address.url} serves, is "
            f"not on this machine; give a folder or a hub id with its tokenizer and config.json in --{role}-tokenizer"
        )
    return folder
