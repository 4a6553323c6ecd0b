"""Models on other servers: the way to them, and what their servers say of themselves.

This module has what is needed before an event loop runs; `winnow.models.engines.model_server` has the rest.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from winnow.models.engines.addresses import CHAT_APIS, Address
from winnow.models.engines.hub import cached, fetched, is_local
from winnow.models.errors import CheckpointError

logger = logging.getLogger(__name__)

NEEDED_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "winnow-card.toml")
"""Files of a hub id that a remote model is read by: all but its weights."""
START_PAUSE = 1.0
"""Seconds between two questions to a server that does not answer yet."""
TOLD_EVERY = 10.0
"""Seconds between two messages that a server is waited for."""
CONNECT_SECONDS = 5.0
KEEP_SECONDS = 3.0
"""Longest silence on a connection that is used again; vLLM's server closes its own after 5 s."""
FOR_PROBES = 2
"""Connections beyond those of requests, so that a server whose requests are all silent can still be asked."""
MAX_BYTES = 4 * 2**20
"""Largest answer of a model server that is read, beside the sampled tokens in it."""
TOKEN_BYTES = 64
"""Most bytes of a token in an answer; `"token_id:128000":-1.1920928244535389e-07,`, the longest form, has 42."""
MOST_BYTES = 256 * 2**20
"""Largest answer of all, however many tokens are asked for."""
_MAY_BE_LONE = re.compile(rb"(?i:\\ud[89a-f])|\xed[\xa0-\xbf]|\0")
"""Signs of JSON that holds a surrogate: escaped, as bytes, or in UTF-16 or 32."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a model server: its address, a key, httpx's own options, and limits.

    `seconds` bounds one score with all its retries, `start_seconds` the wait for the server at the start, and
    `connections` the requests at once, of each server. `others` are further servers of the same model, each with
    httpx's options for the way to it.
    """

    address: Address
    key: str | None = field(default=None, repr=False)
    http_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seconds: float = 60.0
    start_seconds: float = 600.0
    connections: int = 64
    others: Mapping[Address, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of all servers."""
        return (self.address, *self.others)

    @property
    def shown(self) -> str:
        """The URLs of all servers, as messages have them."""
        return ", ".join(address.url for address in self.addresses)

    def client_options(self, address: Address | None = None) -> dict[str, Any]:
        """Return the arguments of httpx's clients for the server at `address`, None for the first; no redirects."""
        return {
            "trust_env": False,
            "headers": {"Authorization": f"Bearer {self.key}"} if self.key else {},
            "timeout": httpx.Timeout(self.seconds, connect=min(CONNECT_SECONDS, self.seconds)),
            "limits": httpx.Limits(max_connections=self.connections + FOR_PROBES, keepalive_expiry=KEEP_SECONDS),
            **(self.http_options if address is None else self.others.get(address, self.http_options)),
        }


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model as its server tells of it: its `name` there, the checkpoint `root`, and the context; None if untold.

    `absent` are servers of its pool that have not answered yet.
    """

    link: Link
    name: str
    root: str | None = None
    context: int | None = None
    absent: tuple[Address, ...] = ()

    @property
    def checkpoint(self) -> str:
        """The checkpoint's name: the last part of a folder or a hub id, else the model's name."""
        return Path((self.root or self.name).rstrip("/")).name

    @property
    def present(self) -> tuple[Address, ...]:
        """The addresses of the servers that have told of it."""
        return tuple(address for address in self.link.addresses if address not in self.absent)

    def same_as(self, other: RemoteModel) -> bool:
        """Whether a server that told `other` serves this model; a folder may lie elsewhere there."""
        return (self.name, _place(self.root), self.context) == (other.name, _place(other.root), other.context)


def _place(root: str | None) -> str | None:
    return Path(root).name if root and root.startswith(("/", ".", "~")) else root


class NotReady(Exception):
    """The server does not answer yet; the message says why."""


def model_name(role: str) -> str:
    """Return what messages call the model `role`."""
    return "policy" if role == "policy" else f"{role} reward model"


def discover(role: str, link: Link, wanted: str | None) -> RemoteModel:
    """Return the model called `wanted`, or the only one, of a server that is waited for; of a pool, of one of them.

    Raises:
        CheckpointError: no server answered in time, or one does not serve the model, or serves another than the rest.
    """
    begun = told = time.monotonic()
    while True:
        found, problems = _asked(role, link, wanted)
        if found:
            for address, problem in problems.items():
                logger.warning("the %s's server at %s: %s", model_name(role), address.url, problem)
            return replace(found, absent=tuple(problems))
        problem = next(iter(problems.values()))
        now = time.monotonic()
        if now - begun >= link.start_seconds:
            raise CheckpointError(
                f"{model_name(role)}: the server at {link.shown} did not answer within {link.start_seconds:g} s: "
                f"{problem}"
            )
        if now - told >= TOLD_EVERY or told == begun:
            logger.info("waiting for the %s at %s: %s", model_name(role), link.shown, problem)
            told = now + 1e-6
        time.sleep(min(START_PAUSE, max(0.0, link.start_seconds - (now - begun))))


def _asked(role: str, link: Link, wanted: str | None) -> tuple[RemoteModel | None, dict[Address, NotReady]]:
    """Return the model that the servers tell of, None if none answers, and why those that do not answer do not.

    Raises:
        CheckpointError: one does not serve the model, or two tell of different ones.
    """
    found: RemoteModel | None = None
    problems: dict[Address, NotReady] = {}
    for address in link.addresses:
        try:
            model = read_models(link, _listed(link, address), wanted)
        except NotReady as problem:
            problems[address] = problem
            continue
        except ValueError as problem:
            raise CheckpointError(f"{model_name(role)}: {address.url} {problem}") from None
        if found and not found.same_as(model):
            raise CheckpointError(
                f"{model_name(role)}: {address.url} serves another model, or another context, than the server before it"
            )
        found = found or model
    return found, problems


def _listed(link: Link, address: Address) -> Any:
    """Return the server's list of models; None if it has none to tell.

    Raises:
        NotReady: it does not answer yet.
        ValueError: it answers with something else.
    """
    try:
        with httpx.Client(**link.client_options(address)) as client, client.stream("GET", address.models) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError("answers with more than can be a list of models")
            return listed(address, response.status_code, bytes(body))
    except httpx.HTTPError as error:
        if _is_untrusted(error):  # waiting would not change that
            raise ValueError("has a certificate that is not trusted; name its issuer's in SSL_CERT_FILE") from None
        raise NotReady(in_words(error)) from None


def _is_untrusted(error: httpx.HTTPError) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def listed(address: Address, status: int, body: bytes) -> Any:
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
    if status == 404 and address.kind in CHAT_APIS:
        return None
    if status != 200:
        raise ValueError(f"is no model server: /v1/models has status {status}")
    try:
        return from_json(body)
    except (ValueError, RecursionError):
        raise ValueError("is no model server: its /v1/models is not JSON") from None


def most_bytes(tokens: int) -> int:
    """Return the size of the largest answer that is read where it may have that many tokens, alternatives included."""
    return min(MAX_BYTES + TOKEN_BYTES * tokens, MOST_BYTES)


def from_json(text: bytes) -> Any:
    """Return what a server's JSON holds, with U+FFFD for lone surrogates: they are no text, and nothing encodes them.

    Raises:
        ValueError, RecursionError: it is no JSON, or too deep.
    """
    found = json.loads(text)
    if _MAY_BE_LONE.search(text):
        whole = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
        found = json.loads(whole.decode("utf-16", "replace"))
    return found


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
        raise CheckpointError(f"{model_name(role)}: no such folder: {configured}")
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
            f"{model_name(role)}: the tokenizer of {remote.checkpoint}, which {remote.link.shown} serves, is "
            f"not on this machine; give a folder or a hub id with its tokenizer and config.json in --{role}-tokenizer"
        )
    return folder
