"""ASGI middleware in front of every route: request id, access, access log, metrics, CORS, HEAD.

Access is the API key and its roles, the Host header and the origin of a web page. It is decided on the path as the
router reads it: no spelling of a path avoids the checks. The two probes are open, without a key and to any Host. The
playground's files need no key, since the page has to load to ask for one; a link from another site may lead to them.

Written against ASGI instead of a framework's middleware class, so that it buffers no body and adds no task.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow.models.errors import HeadTooLarge, InvalidKey, TooManyHeaders
from winnow.server.api import errors
from winnow.server.api.access import Access
from winnow.server.api.auth import ANYONE, ApiKeys, Caller
from winnow.server.api.hosts import TrustedHosts, to_origin_form
from winnow.server.api.logging import UNANSWERED, RequestLog, request_id
from winnow.server.api.metrics import Metrics
from winnow.server.api.origins import Origins, is_navigation
from winnow.server.service import Service
from winnow.server.settings import Settings

logger = logging.getLogger("winnow.access")

OPEN_PATHS = ("/health", "/ready")
"""The probes: they need no key, and are answered to any Host."""
_QUIET_PATHS = (*OPEN_PATHS, "/metrics")
"""Logged at debug level only, and not counted as requests in flight."""
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
Headers = Sequence[tuple[bytes, bytes]]


class RequestMiddleware:
    """Passes a request on to the application, or refuses it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: Service,
        keys: ApiKeys,
        access: Access,
        metrics: Metrics,
        page: Collection[str] = (),
    ) -> None:
        self.app = app
        self.service = service
        self.keys = keys
        self.access = access
        self.metrics = metrics
        self.page = frozenset(page)
        self.hosts = TrustedHosts(service.settings, has_keys=bool(keys))
        self.origins = Origins(service.settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        target = to_origin_form(scope)
        caller = scope["winnow.caller"] = self.keys.caller(scope["headers"]) if self.keys else ANYONE
        client = scope.get("client") or ("unknown",)
        log = scope["winnow.log"] = RequestLog(request_id(scope), (caller and caller.holder) or client[0])
        # A copy, since uvicorn leaves out the body of an answer by the method in its own scope.
        routed = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def send_logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                log.status = message["status"]
                message = {**message, "headers": [*message["headers"], *self._headers(scope, log)]}
            await send(message)

        try:
            with self._checked(scope, caller, target):
                if self.origins.is_preflight(scope):
                    preflight = Response(status_code=204, headers=self.origins.preflight_headers(scope))
                    await preflight(scope, receive, send_logged)
                else:
                    await self.app(routed, receive, send_logged)
        except Exception as error:
            # The boundary of whatever no route has answered.
            if log.status != UNANSWERED:
                raise
            await errors.response(error, scope)(scope, receive, send_logged)
        finally:
            self._record(routed, scope["method"], log)

    def _checked(
        self, scope: Scope, caller: Caller | None, target: str | None
    ) -> contextlib.AbstractContextManager[None]:
        """Check key, head, hosts, origin and role, and count the request as in flight.

        A preflight request shows no key, and a probe needs neither key nor host; both are not counted. The page's files
        need no key.
        """
        is_probe, is_preflight = scope["path"] in OPEN_PATHS, self.origins.is_preflight(scope)
        is_page = scope["path"] in self.page
        is_open = is_probe or is_preflight or is_page
        if caller is None and not is_open:
            raise InvalidKey("a valid API key is needed: send one header Authorization: Bearer KEY")
        _require_bounded(scope, self.service.settings)
        if not is_probe:
            self.hosts.check(scope, target)
        if not (is_page and is_navigation(scope)):
            self.origins.check(scope)
        if caller and not is_open:
            self.access.check(scope, caller)
        is_counted = scope["path"] not in _QUIET_PATHS and not is_preflight
        return self.service.lifecycle.request() if is_counted else contextlib.nullcontext()

    def _headers(self, scope: Scope, log: RequestLog) -> Headers:
        """Return the headers of every answer; while the server drains, they tell clients to let the connection go."""
        own = [(b"x-request-id", log.id.encode()), (b"openai-processing-ms", b"%.0f" % log.ms)]
        closing = [(b"connection", b"close")] if self.service.lifecycle.is_draining else []
        return [*own, *self.origins.headers(scope), *closing]

    def _record(self, scope: Scope, method: str, log: RequestLog) -> None:
        """Count the request in the metrics and write its line in the access log."""
        # The route's path, not the request's: clients must not be able to make up label values and log lines.
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(route, str(log.status)).inc()
        level = logging.DEBUG if route in _QUIET_PATHS else logging.INFO
        if logger.isEnabledFor(level):
            method = method if method in _METHODS else "other"
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
