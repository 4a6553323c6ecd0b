"""What every request passes before its route: an id, a key, a host, a place in the log and in the metrics.

Written against ASGI, not as a framework's middleware: it holds no body and adds no task. Who may pass is decided on the
path as the router reads it, and only the two probes are open, so that no spelling of a path leads around the key.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow.models.errors import HeadTooLarge, InvalidKey, TooManyHeaders, UntrustedHost, WinnowError
from winnow.server.api import errors
from winnow.server.api.auth import ApiKeys
from winnow.server.api.metrics import Metrics
from winnow.server.service import Service
from winnow.server.settings import Settings

logger = logging.getLogger("winnow.access")

OPEN_PATHS = ("/health", "/ready")
_QUIET_PATHS = (*OPEN_PATHS, "/metrics")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Record:
    """One request as the log tells it: what the front saw, and what the route added to `fields`."""

    id: str
    flow: str
    """Who asks, for the fair queue and the log: the key's short name, or the address."""
    started: float = field(default_factory=time.monotonic)
    status: int = 499
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def ms(self) -> float:
        """Milliseconds since the request's head was read."""
        return round((time.monotonic() - self.started) * 1e3, 1)


def record(scope: Scope) -> Record:
    """The record of the request that `scope` belongs to."""
    found: Record = scope["winnow.record"]
    return found


class Front:
    """ASGI middleware: lets a request in, or answers it itself."""

    def __init__(self, app: ASGIApp, *, service: Service, keys: ApiKeys, metrics: Metrics) -> None:
        self.app = app
        self.service = service
        self.keys = keys
        self.metrics = metrics
        self.trusted_hosts = tuple(host.lower() for host in service.settings.trusted_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        holder = self.keys.holder(headers)
        client = scope.get("client") or ("unknown",)
        noted = scope["winnow.record"] = Record(_request_id(headers), holder or client[0])

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
                own = ((b"x-request-id", noted.id.encode()), (b"openai-processing-ms", b"%.0f" % noted.ms))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            with self._admitted(scope, holder):
                await self.app(scope, receive, noting)
        except WinnowError as error:
            await errors.response(error, scope)(scope, receive, noting)
        finally:
            self._count(scope, noted)

    def _admitted(self, scope: Scope, holder: str | None) -> contextlib.AbstractContextManager[None]:
        """Count the request as in flight if it may pass; the probes always may, and are not counted."""
        path, headers = scope["path"], scope["headers"]
        if path in OPEN_PATHS:
            _require_bounded(scope, self.service.settings)
            return contextlib.nullcontext()
        if self.keys and holder is None:
            raise InvalidKey("a valid API key is needed: send one header Authorization: Bearer KEY")
        _require_bounded(scope, self.service.settings)
        if self.trusted_hosts and not _is_trusted(headers, self.trusted_hosts):
            raise UntrustedHost("this server does not answer to this Host header; see its setting trusted_hosts")
        return contextlib.nullcontext() if path in _QUIET_PATHS else self.service.lifecycle.request()

    def _count(self, scope: Scope, noted: Record) -> None:
        # The route's own path, never the one that was asked for: label values and log lines must not be the client's to make.
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(route, str(noted.status)).inc()
        level = logging.DEBUG if route in _QUIET_PATHS else logging.INFO
        if logger.isEnabledFor(level):
            fields = {"request_id": noted.id, "method": _method(scope), "route": route, "status": noted.status}
            logger.log(level, "request", extra={**fields, "ms": noted.ms, "client": noted.flow, **noted.fields})


def _require_bounded(scope: Scope, settings: Settings) -> None:
    """The connection bounds what it must hold before a head is whole; here the rest is bounded, to the byte."""
    headers: Headers = scope["headers"]
    if len(headers) > settings.max_headers:
        raise TooManyHeaders(f"the request has {len(headers)} headers; at most {settings.max_headers} are read")
    size = (
        len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + 4 for name, value in headers)
    )
    if size > settings.max_header_bytes:
        raise HeadTooLarge(f"the request's head exceeds this server's limit of {settings.max_header_bytes} bytes")


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
    return scope["method"] if scope["method"] in known else "other"


def _request_id(headers: Headers) -> str:
    """The client's `X-Request-Id` if it is short and plain, else a fresh one."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0].decode()
    return f"req_{secrets.token_hex(16)}"


def _is_trusted(headers: Headers, trusted: Sequence[str]) -> bool:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        return False
    host = re.sub(r":\d*$", "", hosts[0].decode("latin-1").lower())
    return any(host == name or (name.startswith("*.") and host.endswith(name[1:])) for name in trusted)
