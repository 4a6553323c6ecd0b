"""The HTTP connection: time and size limits for a request's head and body, and refusals that reach the client.

Uvicorn's h11 protocol (its httptools protocol does not bound heads) with three additions: deadlines for
a request's head and body, JSON bodies for errors found below the application, and a lingering close:
closing a socket while the client still sends resets the connection, and the client loses its answer.
`_Connection` sits between uvicorn and h11, `_LingeringTransport` between uvicorn and the transport.
Nothing that a client sent is logged.

The idle time before a request's first byte is `uvicorn.Config(timeout_keep_alive=…)`, on new connections too.
Not covered: the number of connections, the size of a body, which the application bounds, and clients
that do not read their answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, cast

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from winnow.clients.schema import ErrorBody, ErrorDetail
from winnow.server.api.logging import request_id

logger = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
LINGER_BYTES = 16_000_000
"""Time and bytes for which a connection is still read after its last response.

Many clients read no answer before they have sent all of a body; what is sent beyond these costs them the answer.
"""
_CLOSE = (b"connection", b"close")
Headers = Sequence[tuple[bytes, bytes]]
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a request: seconds for head and body, bytes and headers of the head, and whether keys are required.

    A head's time starts with its first byte, a body's at the end of its head. With `max_headers=None` the application
    counts the headers. If keys are required, a head above a limit gets 401 instead of 431: it has shown no key.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    max_header_bytes: int = 65_536
    max_headers: int | None = None
    keys_required: bool = False

    def describe(self, code: str) -> tuple[int, ErrorDetail]:
        """Return the status and the body's detail for a request that is refused with `code`."""
        status, message = {
            "request_timeout": (408, "the request took too long to arrive"),
            "headers_too_large": (
                431,
                f"the request's head exceeds this server's limit of {self.max_header_bytes} bytes",
            ),
            "too_many_headers": (431, f"the request exceeds this server's limit of {self.max_headers} headers"),
            "invalid_http": (400, "this is not an HTTP request"),
        }[code]
        if status == 431 and self.keys_required:
            message = f"a valid API key is needed, in a head that can be read: {message}"
            return 401, ErrorDetail(message=message, type="authentication_error", code="invalid_api_key")
        return status, ErrorDetail(message=message, type="invalid_request_error", code=code)


def bounded_protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """Return a protocol class for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits})


class _BoundedProtocol(H11Protocol):
    limits: ClassVar[ConnectionLimits]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn: _Connection = _Connection(self)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._lingering_transport = _LingeringTransport(transport, self)
        super().connection_made(cast(asyncio.Transport, self._lingering_transport))
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._disarm()

    def data_received(self, data: bytes) -> None:
        if self._lingering_transport.is_lingering or self.conn.their_state is h11.MUST_CLOSE:
            self._lingering_transport.discard(data)
        else:
            super().data_received(data)

    def shutdown(self) -> None:
        if self._lingering_transport.is_lingering:
            self._lingering_transport.abort()
        else:
            super().shutdown()

    def _should_upgrade(self) -> bool:
        return False

    @property
    def has_unread_data(self) -> bool:
        """Whether the client has sent, or still sends, data that has not been read."""
        return self.conn.their_state is h11.SEND_BODY or self.flow.read_paused

    def expect(self, event: _Event) -> None:
        """Set the deadline of the part of the request that follows `event`."""
        if isinstance(event, h11.Request):
            self.arm(self.limits.body_seconds, self._body_is_late)
        elif isinstance(event, h11.EndOfMessage):
            self._disarm()
        elif self._deadline is None and self.conn.their_state is h11.IDLE and self.conn.buffered:
            self.arm(self.limits.header_seconds, self._head_is_late)

    def refuse(self, code: str) -> None:
        """Answer in place of the application and close; the application sees the client as disconnected.

        If the application has begun to answer, only close.
        """
        status, detail = self.limits.describe(code)
        is_running = self.cycle is not None and not self.cycle.response_complete
        name = request_id(cast(Scope, self.scope) if is_running else {"headers": self.conn.headers})
        client = self.client[0] if self.client else "unknown"
        logger.info("refused", extra={"request_id": name, "status": status, "error": code, "client": client})
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [*self.server_state.default_headers, (b"x-request-id", name.encode())]
            self.transport.write(self.conn.answer(status, headers, detail))
        self._lingering_transport.linger()

    def arm(self, seconds: float, late: Callable[[], None]) -> None:
        """Call `late` after `seconds`, in place of any deadline set before."""
        self._disarm()
        self._deadline = self.loop.call_later(seconds, late)

    def _disarm(self) -> None:
        self._unset_keepalive_if_required()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        self.refuse("request_timeout")

    def _body_is_late(self) -> None:
        if self.flow.read_paused or self.conn.they_are_waiting_for_100_continue:
            self.arm(self.limits.body_seconds, self._body_is_late)  # the application is not reading
        else:
            self.refuse("request_timeout")


class _Connection(h11.Connection):
    """Reports every event and every error of the connection to the protocol; uvicorn sees only the events."""

    def __init__(self, protocol: _BoundedProtocol) -> None:
        super().__init__(h11.SERVER, protocol.limits.max_header_bytes)
        self._protocol = protocol
        self._is_head = False
        self.headers: Headers = ()
        """Headers of the current request, once its head has been read."""

    @property
    def buffered(self) -> int:
        """Bytes received that are not part of an event yet."""
        return len(self.trailing_data[0])

    def next_event(self) -> _Event:
        """Return the next event, or `NEED_DATA` if it had to be refused."""
        awaits_head = self.their_state is h11.IDLE
        before = self.buffered if awaits_head else 0
        if awaits_head:
            self._is_head, self.headers = False, ()
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            is_long = awaits_head and error.error_status_hint == 431
            self._protocol.refuse("headers_too_large" if is_long else "invalid_http")
            return h11.NEED_DATA
        if isinstance(event, h11.Request):
            self._is_head, self.headers = event.method == b"HEAD", list(event.headers)
            if excess := self._excess(before - self.buffered, len(event.headers)):
                self._protocol.refuse(excess)
                return h11.NEED_DATA
        self._protocol.expect(event)
        # Reading goes on behind a request, within bounds: a client that leaves is noticed by the end of what it sends.
        if event is h11.PAUSED and self.buffered <= self._protocol.limits.max_header_bytes:
            return h11.NEED_DATA
        return event

    def _excess(self, size: int, headers: int) -> str | None:
        limits = self._protocol.limits
        if size > limits.max_header_bytes:  # h11 bounds only a head that is still incomplete
            return "headers_too_large"
        return "too_many_headers" if limits.max_headers is not None and headers > limits.max_headers else None

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Encode `event`; add `Connection: close` to a response that is sent before the request's end."""
        if isinstance(event, h11.Response) and self.their_state is h11.SEND_BODY and _CLOSE not in event.headers:
            event = h11.Response(status_code=event.status_code, headers=[*event.headers, _CLOSE], reason=event.reason)
        return super().send_with_data_passthrough(event)

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], detail: ErrorDetail) -> bytes:
        """Return the bytes of a complete response that ends the connection."""
        body = ErrorBody(error=detail).model_dump_json().encode()
        own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), _CLOSE]
        own += [(b"x-should-retry", b"false"), *([(b"www-authenticate", b"Bearer")] if status == 401 else [])]
        head = h11.Response(status_code=status, headers=[*headers, *own], reason=HTTPStatus(status).phrase)
        data = h11.Data(data=b"" if self._is_head else body)
        return self.send(head) + self.send(data) + self.send(h11.EndOfMessage())


class _LingeringTransport:
    """Uvicorn's transport. `close` lingers if the client would otherwise lose the response."""

    def __init__(self, transport: asyncio.Transport, protocol: _BoundedProtocol) -> None:
        self.is_lingering = False
        self._transport = transport
        self._protocol = protocol
        self._discarded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.has_unread_data:
            self.linger()
        elif not self.is_lingering:
            self._transport.close()

    def linger(self) -> None:
        """Send EOF and keep reading for `LINGER_SECONDS`, so that the client can read the response."""
        if self.is_closing():
            return
        self.is_lingering = True
        with contextlib.suppress(OSError):  # the client has disconnected
            if self._transport.can_write_eof():
                self._transport.write_eof()
        self._transport.resume_reading()
        self._protocol.arm(LINGER_SECONDS, self._transport.abort)

    def discard(self, data: bytes) -> None:
        """Count `data` without reading it; more than `LINGER_BYTES` end the connection."""
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._transport.abort()
