"""The connection under HTTP: heads and bodies that arrive in time and in bounds, and refusals that arrive at all.

Uvicorn's h11 protocol (its httptools one bounds no head) with three additions: deadlines for a request's head and body, JSON
for the errors found below the application, and a lingering close: closing a socket on which the client still sends would
reset the connection, and the client would lose its answer. It hooks in where uvicorn meets others: `_Connection` stands
between it and h11, `_Outlet` between it and the transport. Of what a client sent, nothing is logged.

Not covered: how many connections there are, how long one may idle between requests (`uvicorn.Config(timeout_keep_alive=…)`),
how large a body may be, which is the application's to bound, and clients that do not read their answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from winnow.clients.schema import ErrorBody, ErrorDetail

logger = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
LINGER_BYTES = 4_000_000
_CLOSE = (b"connection", b"close")
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds that a head and a body may take to arrive, bytes and fields that a head may have, and whether keys are required.

    The seconds of a head count from the opening of the connection, or from the first byte of a later request; those of a
    body from the end of its head. `max_headers=None` leaves the count of fields to the application. Where keys are required,
    a head beyond its limits gets 401 and not 431: it has shown no key.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    max_header_bytes: int = 65_536
    max_headers: int | None = None
    keys_required: bool = False

    def describe(self, code: str) -> tuple[int, ErrorDetail]:
        """The status and the body's detail for a request that is refused for `code`."""
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
    """The protocol class for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits})


class _BoundedProtocol(H11Protocol):
    limits: ClassVar[ConnectionLimits]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn: _Connection = _Connection(self)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._outlet = _Outlet(transport, self)
        super().connection_made(cast(asyncio.Transport, self._outlet))
        self.arm(self.limits.header_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._disarm()

    def data_received(self, data: bytes) -> None:
        if self._outlet.lingers or self.conn.their_state is h11.MUST_CLOSE:
            self._outlet.discard(data)
        else:
            super().data_received(data)

    def shutdown(self) -> None:
        if self._outlet.lingers:
            self._outlet.abort()
        else:
            super().shutdown()

    def _should_upgrade(self) -> bool:
        return False

    @property
    def is_unread(self) -> bool:
        """Whether the client still sends, or has sent, what was not read."""
        return self.conn.their_state is h11.SEND_BODY or self.flow.read_paused

    def expect(self, event: _Event) -> None:
        """Set the deadline for what has to come after `event`."""
        if isinstance(event, h11.Request):
            self.arm(self.limits.body_seconds, self._body_is_late)
        elif isinstance(event, h11.EndOfMessage):
            self._disarm()
        elif self._deadline is None and self.conn.their_state is h11.IDLE and self.conn.buffered:
            self.arm(self.limits.header_seconds, self._head_is_late)

    def refuse(self, code: str) -> None:
        """Answer in the application's stead, unless it has begun to, and close. It sees the client as gone."""
        status, detail = self.limits.describe(code)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(self.conn.answer(status, self.server_state.default_headers, detail))
        self._outlet.linger()
        client = self.client[0] if self.client else "unknown"
        logger.info("refused", extra={"status": status, "error": code, "client": client})

    def arm(self, seconds: float, late: Callable[[], None]) -> None:
        """Have `late` called after so long, and nothing else."""
        self._disarm()
        self._deadline = self.loop.call_later(seconds, late)

    def _disarm(self) -> None:
        self._unset_keepalive_if_required()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        if self.conn.buffered:
            self.refuse("request_timeout")
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        if self.flow.read_paused or self.conn.they_are_waiting_for_100_continue:
            self.arm(self.limits.body_seconds, self._body_is_late)  # it is the application that does not read
        else:
            self.refuse("request_timeout")


class _Connection(h11.Connection):
    """The HTTP of a connection: tells the protocol what came and what is wrong with it, and uvicorn only the former."""

    def __init__(self, protocol: _BoundedProtocol) -> None:
        super().__init__(h11.SERVER, protocol.limits.max_header_bytes)
        self._protocol = protocol
        self._is_head = False

    @property
    def buffered(self) -> int:
        """Bytes that came and are not part of an event yet."""
        return len(self.trailing_data[0])

    def next_event(self) -> _Event:
        """What came next; nothing if it had to be refused."""
        awaits_head = self.their_state is h11.IDLE
        before = self.buffered if awaits_head else 0
        self._is_head = self._is_head and not awaits_head
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            is_long = awaits_head and error.error_status_hint == 431
            self._protocol.refuse("headers_too_large" if is_long else "invalid_http")
            return h11.NEED_DATA
        if isinstance(event, h11.Request):
            self._is_head = event.method == b"HEAD"
            if excess := self._excess(before - self.buffered, len(event.headers)):
                self._protocol.refuse(excess)
                return h11.NEED_DATA
        self._protocol.expect(event)
        return event

    def _excess(self, size: int, headers: int) -> str | None:
        limits = self._protocol.limits
        if size > limits.max_header_bytes:  # h11 itself bounds only a head whose end has not come
            return "headers_too_large"
        return "too_many_headers" if limits.max_headers is not None and headers > limits.max_headers else None

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Encode `event`. A response that does not wait for the end of the request ends the connection, and says so."""
        if isinstance(event, h11.Response) and self.their_state is h11.SEND_BODY and _CLOSE not in event.headers:
            event = h11.Response(status_code=event.status_code, headers=[*event.headers, _CLOSE], reason=event.reason)
        return super().send_with_data_passthrough(event)

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], detail: ErrorDetail) -> bytes:
        """The bytes of a whole response that ends the connection."""
        body = ErrorBody(error=detail).model_dump_json().encode()
        own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), _CLOSE]
        own += [(b"x-should-retry", b"false"), *([(b"www-authenticate", b"Bearer")] if status == 401 else [])]
        head = h11.Response(status_code=status, headers=[*headers, *own], reason=HTTPStatus(status).phrase)
        data = h11.Data(data=b"" if self._is_head else body)
        return self.send(head) + self.send(data) + self.send(h11.EndOfMessage())


class _Outlet:
    """The transport as uvicorn has it: its close lingers where the client would otherwise lose what was written."""

    def __init__(self, transport: asyncio.Transport, protocol: _BoundedProtocol) -> None:
        self.lingers = False
        self._transport = transport
        self._protocol = protocol
        self._discarded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.is_unread:
            self.linger()
        elif not self.lingers:
            self._transport.close()

    def linger(self) -> None:
        """Say that no more will come and read on for a while, so that the client gets to read what came."""
        if self.is_closing():
            return
        self.lingers = True
        with contextlib.suppress(OSError):  # the client has gone
            if self._transport.can_write_eof():
                self._transport.write_eof()
        self._transport.resume_reading()
        self._protocol.arm(LINGER_SECONDS, self._transport.abort)

    def discard(self, data: bytes) -> None:
        """Count what came and is not read; too much of it ends the connection."""
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._transport.abort()
