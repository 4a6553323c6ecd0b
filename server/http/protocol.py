"""The connection under HTTP: heads and bodies that arrive in time and in bounds, and refusals that arrive at all.

Uvicorn's h11 protocol (httptools bounds no head) with three additions: deadlines for a request's head and body, JSON for the
errors found below the application, and a lingering close: closing a socket on which the client still sends would reset the
connection, and the client would lose the refusal that it was sent. Not covered: how many connections there are.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from winnow.clients.wire import ErrorBody, ErrorDetail

LINGER_SECONDS = 2.0
LINGER_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds that a head and a body may take to arrive, bytes that a head may have, and whether keys are required.

    A head that cannot be read shows no key, so where keys are required it is refused as one without.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    max_header_bytes: int = 65_536
    keys_required: bool = False


def bounded_protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """The protocol class for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits})


class _BoundedProtocol(H11Protocol):
    limits: ClassVar[ConnectionLimits]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = h11.Connection(h11.SERVER, self.limits.max_header_bytes)
        self._heard = False
        self._lingered = 0
        self._lingers = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self.limits.header_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.abort()
            return
        self._heard = True
        before = self.conn.their_state
        if before is h11.IDLE and self._deadline is None:
            self._arm(self.limits.header_seconds, self._head_is_late)
        super().data_received(data)
        if not self._lingers and self.conn.their_state is not before:
            self._disarm()
            if self.conn.their_state is h11.SEND_BODY:
                self._arm(self.limits.body_seconds, self._body_is_late)

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self._linger()
        else:
            super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn calls this where h11 could not read what came; the exception at hand says whether it was too long."""
        if getattr(sys.exception(), "error_status_hint", 400) != 431:
            self._refuse(400, "invalid_http", "this is not an HTTP request")
        elif self.limits.keys_required:
            self._refuse(401, "invalid_api_key", "a valid API key is needed, in headers of a reasonable size")
        else:
            size = self.limits.max_header_bytes
            self._refuse(431, "headers_too_large", f"the request's head exceeds this server's limit of {size} bytes")

    def shutdown(self) -> None:
        if self._lingers:
            self.transport.close()
        else:
            super().shutdown()

    def _head_is_late(self) -> None:
        if self._heard and self.conn.their_state is h11.IDLE:
            self._refuse(408, "request_timeout", "the request's head took too long to arrive")
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        self._refuse(408, "request_timeout", "the request's body took too long to arrive")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in the application's stead, which sees the client as gone, and close."""
        started = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if started or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        kind = "authentication_error" if status == 401 else "invalid_request_error"
        body = ErrorBody(error=ErrorDetail(message=message, type=kind, code=code)).model_dump_json().encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("x-should-retry", "false"),
            *([("www-authenticate", "Bearer")] if status == 401 else []),
        ]
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self._linger()

    def _linger(self) -> None:
        """Say that no more will come, and read what the client still sends, for a while, so that it can read us."""
        self._lingers = True
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._arm(LINGER_SECONDS, self.transport.abort)

    def _arm(self, seconds: float, late: Any) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
