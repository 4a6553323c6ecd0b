"""ASGI middleware in front of every route: request id, API key, Host header, access log, metrics.

Written against ASGI instead of a framework's middleware class, so that it buffers no body and adds no
task. Access is decided on the path as the router reads it, and only the two probes are open: no
spelling of a path avoids the key check.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow.models.errors import HeadTooLarge, InvalidKey, TooManyHeaders, UntrustedHost, WinnowError
from winnow.server.api import errors
from winnow.server.api.auth import ApiKeys
from winnow.server.api.logging import RequestLog
from winnow.server.api.metrics import Metrics
from winnow.server.service import Service
from winnow.server.settings import Settings

logger = logging.getLogger("winnow.access")

OPEN_PATHS = ("/health", "/ready")
_QUIET_PATHS = (*OPEN_PATHS, "/metrics")
"""Logged at debug level only, and not counted as requests in flight."""
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
Headers = Sequence[tuple[bytes, bytes]]


class RequestMiddleware:
    """Passes a request on to the application, or refuses it."""

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
        log = scope["winnow.log"] = RequestLog(_request_id(headers), holder or client[0])

        async def send_logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                log.status = message["status"]
                own = ((b"x-request-id", log.id.encode()), (b"openai-processing-ms", b"%.0f" % log.ms))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            with self._checked(scope, holder):
                await self.app(scope, receive, send_logged)
        except WinnowError as error:
            await errors.response(error, scope)(scope, receive, send_logged)
        finally:
            self._record(scope, log)

    def _checked(self, scope: Scope, holder: str | None) -> contextlib.AbstractContextManager[None]:
        """Check key, head and Host, and count the request as in flight; for a probe, check only the head."""
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

    def _record(self, scope: Scope, log: RequestLog) -> None:
        """Count the request in the metrics and write its line in the access log."""
        # The route's path, not the request's: clients must not be able to make up label values and log lines.
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(route, str(log.status)).inc()
        level = logging.DEBUG if route in _QUIET_PATHS else logging.INFO
        if logger.isEnabledFor(level):
            method = scope["method"] if scope["method"] in _METHODS else "other"
            fields = {"request_id": log.id, "method": method, "route": route, "status": log.status}
            logger.log(level, "request", extra={**fields, "ms": log.ms, "client": log.flow, **log.fields})


def _require_bounded(scope: Scope, settings: Settings) -> None:
    """Check the head against its limits exactly; the connection bounds only what it buffers for an incomplete head.

    Raises:
        TooManyHeaders, HeadTooLarge: the head exceeds a limit.
    """
    headers: Headers = scope["headers"]
    if len(headers) > settings.max_headers:
        raise TooManyHeaders(f"the request has {len(headers)} headers; at most {settings.max_headers} are read")
    size = (
        len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + 4 for name, value in headers)
    )
    if size > settings.max_header_bytes:
        raise HeadTooLarge(f"the request's head exceeds this server's limit of {settings.max_header_bytes} bytes")


def _request_id(headers: Headers) -> str:
    """Return the client's `X-Request-Id` if it is short and plain, else a new id."""
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
