"""Slow, oversized, malformed and endless requests: raw sockets against a small application under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.live import wait_until
from winnow.clients.schema import ErrorBody
from winnow.server.api import h11_protocol
from winnow.server.api.h11_protocol import ConnectionLimits, bounded_protocol

SOON = 0.3
LATEST = 10.0
GET = b"GET /read HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


@dataclass
class Application:
    """Answers with the length of the body; paths other than `/read` do so in other ways, or refuse to.

    `endings` has the path and the kind of the last message of each finished request.
    """

    endings: list[tuple[str, str]] = field(default_factory=list)
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    watching: threading.Event = field(default_factory=threading.Event)
    blocks: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=LATEST))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], [(b"connection", b"close")] if scope["path"] == "/early-close" else []
        if path in ("/late", "/early-late"):
            await self.may_read.wait()
        if path == "/watch":
            while (message := await receive())["type"] != "http.disconnect":
                self.watching.set()  # and goes on to wait, before the loop reads anything more
            self.endings.append((path, message["type"]))
            return
        if path == "/early-blocked":
            self.blocks.wait()
            self.blocks.wait()
        if path == "/begin":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        kind, size, more = "none", 0, not path.startswith("/early")
        while more:
            message = await receive()
            kind = message["type"]
            size += len(message.get("body", b""))
            more = message.get("more_body", False) and path != "/few"
        self.endings.append((path, kind))
        status, body = (200, b"%d bytes" % size) if path in ("/read", "/late") else (413, b"too large")
        if path != "/begin":
            headers.append((b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Answer:
    """A response, its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The error code, after checks of everything that all error answers share."""
        error = ErrorBody.model_validate_json(self.body).error
        assert error.type == ("authentication_error" if self.status == 401 else "invalid_request_error")
        assert b'"param":null' in self.body
        assert self.headers["content-type"] == "application/json"
        assert self.headers["connection"] == "close"
        assert self.headers["x-should-retry"] == "false"
        assert self.headers["x-request-id"]
        assert self.headers.get("www-authenticate") == ("Bearer" if self.status == 401 else None)
        return error.code


@dataclass
class Client:
    """One raw connection."""

    socket: socket.socket
    received: bytes = b""

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def send_each(self, data: bytes, size: int) -> None:
        """Send `data` in parts of `size` bytes; the server reads each by itself if it is quick enough."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            self.socket.sendall(data[start : start + size])

    def send_until_answered(self, part: bytes, seconds: float) -> None:
        """Send `part` every `seconds` until the server sends something."""
        deadline = time.monotonic() + LATEST
        while not select.select([self.socket], [], [], seconds)[0]:
            assert time.monotonic() < deadline
            with contextlib.suppress(BlockingIOError):
                self.socket.send(part, socket.MSG_DONTWAIT)

    def _receive(self) -> bool:
        part = self.socket.recv(65536)
        self.received += part
        return bool(part)

    def answer(self, method: str = "GET") -> Answer:
        """Return the next response, which has a Content-Length."""
        while b"\r\n\r\n" not in self.received:
            assert self._receive(), f"the connection ended after {self.received!r}"
        head, _, rest = self.received.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
        length = int(headers["content-length"]) if method != "HEAD" else 0
        while len(rest) < length:
            assert self._receive()
            rest = self.received.partition(b"\r\n\r\n")[2]
        self.received = rest[length:]
        return Answer(int(line.split()[1]), headers, rest[:length])

    def rest(self) -> bytes:
        """Return everything received until the server ends the connection; a reset is an error."""
        while self._receive():
            pass
        return self.received

    def vanish(self) -> None:
        """Reset the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@dataclass
class Server:
    """A running server."""

    port: int
    application: Application
    uvicorn: uvicorn.Server
    loop: asyncio.AbstractEventLoop

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=LATEST) as connection:
            yield Client(connection)

    @property
    def is_idle(self) -> bool:
        """Whether no connection, task or timer is left, except uvicorn's own timer."""
        state = self.uvicorn.server_state
        return not (state.connections or state.tasks or [timer for timer in self._timers() if "Protocol" in timer])

    def _timers(self) -> list[str]:
        return asyncio.run_coroutine_threadsafe(_timers(), self.loop).result(LATEST)


async def _timers() -> list[str]:
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [repr(handle) for handle in scheduled if not handle.cancelled()]


@contextlib.contextmanager
def serving(timeout_keep_alive: float = 75.0, **limits: Any) -> Iterator[Server]:
    """Serve a fresh application; at the end, check that no connection, task or timer is left."""
    application = Application()
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=bounded_protocol(ConnectionLimits(**limits)),
            timeout_keep_alive=timeout_keep_alive,  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve([listener])))
        thread.start()
        try:
            assert wait_until(lambda: server.started, LATEST)
            running = Server(listener.getsockname()[1], application, server, loop)
            yield running
            assert wait_until(lambda: running.is_idle, LATEST), running._timers()
        finally:
            server.should_exit = True
            thread.join(LATEST)
            loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(max_headers=100) as running:
        yield running


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is logged above info level, or in the client's words."""
    caplog.set_level(logging.INFO)
    yield
    records = caplog.get_records("call")
    assert [record for record in records if record.levelno > logging.INFO] == []
    assert "sesame" not in repr([vars(record) for record in records])


def padded(size: int) -> bytes:
    """Return a request whose head has `size` bytes."""
    start = b"GET /read HTTP/1.1\r\nhost: x\r\nx-padding:"
    return start + b"p" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("earlier", [b"", GET], ids=["new", "kept"])
def test_a_head_must_be_complete_in_time_even_if_it_trickles(earlier: bytes) -> None:
    with serving(header_seconds=SOON) as server, server.client() as slow:
        if earlier:
            slow.send(earlier)
            assert slow.answer().status == 200
        began = time.monotonic()
        slow.send(b"GET /read HTTP/1.1\r\nx: ")
        with server.client() as other:
            other.send(GET)
            assert other.answer().status == 200
        slow.send_until_answered(b"s", SOON / 10)
        answer = slow.answer()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert time.monotonic() - began > SOON / 2
        assert slow.rest() == b""


@pytest.mark.parametrize("earlier", [b"", GET], ids=["new", "kept"])
def test_an_idle_connection_is_closed_without_an_answer(earlier: bytes) -> None:
    with serving(timeout_keep_alive=SOON, header_seconds=LATEST) as server, server.client() as client:
        began = time.monotonic()
        if earlier:
            client.send(earlier)
            assert client.answer().status == 200
        assert client.rest() == b""
        assert time.monotonic() - began > 0.9 * SOON


@pytest.mark.parametrize("earlier", [b"", GET], ids=["new", "kept"])
def test_a_connection_may_be_idle_for_longer_than_a_head_may_take(earlier: bytes) -> None:
    """Regression: idle connections were closed after 5 s, so that balancers lost requests."""
    with serving(header_seconds=SOON) as server, server.client() as client:
        if earlier:
            client.send(earlier)
            assert client.answer().status == 200
        assert not select.select([client.socket], [], [], 2 * SOON)[0]
        client.send(GET)
        assert client.answer().status == 200


PARTS = {
    "malformed": (b"sesame\r\n\r\n", b""),
    "late head": (b"GET /read HTTP/1.1\r\n", b""),
    "large head": (b"GET /read HTTP/1.1\r\nx-request-id: mine\r\nx: " + b"p" * 1000, b""),
    "many headers": (b"GET /read HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n" + b"a: b\r\n" * 20 + b"\r\n", b"mine"),
    "late body": (b"POST /read HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n" + CHUNKED, b"mine"),
    "broken body": (b"POST /read HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n" + CHUNKED + b"sesame\r\n", b"mine"),
    "hostile id": (b"POST /read HTTP/1.1\r\nhost: x\r\nx-request-id: <a>\r\n" + CHUNKED, b""),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_refusal_has_the_id_that_the_log_has(part: str, caplog: pytest.LogCaptureFixture) -> None:
    sent, name = PARTS[part]
    with serving(header_seconds=SOON, body_seconds=SOON, max_header_bytes=1000, max_headers=10) as server:
        for earlier in (b"", GET[:-2] + b"x-request-id: another\r\n\r\n"):
            caplog.clear()
            with server.client() as client:
                client.send(earlier, sent)
                if earlier:
                    client.answer()
                answer = client.answer()
                assert answer.code
                shown = answer.headers["x-request-id"]
                assert shown == name.decode() if name else shown.startswith("req_")
                assert [vars(record)["request_id"] for record in caplog.records] == [shown]


@pytest.mark.parametrize("size", [1_000, 65_536])
@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_of_a_head_is_exact_however_it_is_split(size: int, over: int) -> None:
    with serving(max_header_bytes=1_000) as server:
        for part in (size, 700, 77):
            with server.client() as client:
                client.send_each(padded(1_000 + over), part)
                assert client.answer().status == (431 if over else 200)


@pytest.mark.parametrize("size", [65_537, 100_000, 1_000_000])
@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("keys_required", [True, False])
def test_a_large_head_gets_its_answer_and_no_reset(size: int, is_complete: bool, keys_required: bool) -> None:
    with serving(keys_required=keys_required) as server:
        for _ in range(3):
            with server.client() as client:
                client.send(padded(size) if is_complete else padded(size + 1)[:-1])
                answer = client.answer()
                assert (answer.status, answer.code) == (
                    (401, "invalid_api_key") if keys_required else (431, "headers_too_large")
                )
                assert client.rest() == b""
        assert server.application.endings == []


@pytest.mark.parametrize("keys_required", [True, False])
def test_headers_are_counted(keys_required: bool) -> None:
    with serving(max_headers=10, keys_required=keys_required) as server:
        for count in (10, 11):
            with server.client() as client:
                client.send(b"POST /read HTTP/1.1\r\n", b"host: x\r\n", b"a: b\r\n" * (count - 2), CHUNKED)
                if count == 10:
                    client.send(b"0\r\n\r\n")
                    assert client.answer().status == 200
                    continue
                answer = client.answer()
                assert (answer.status, answer.code) == (
                    (401, "invalid_api_key") if keys_required else (431, "too_many_headers")
                )
                assert client.rest() == b""
        assert server.application.endings == [("/read", "http.request")]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01sesame\r\n\r\n",
        b"sesame\r\n\r\n",
        b"\r\n\r\n",
        b"GET /sesame HTTP/1.1\r\nsesame\r\n\r\n",
        b"GET /sesame HTTP/1.1\r\n\r\n",
        b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: sesame\r\n\r\n",
        b"POST /read HTTP/1.1\r\nhost: x\r\ntransfer-encoding: sesame\r\n\r\n",
        b"POST /read HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"sesame\r\n",
        b"POST /read HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"1" * 100_000,
        b"\0sesame" * 200_000,
    ],
)
def test_malformed_http_gets_400(server: Server, sent: bytes) -> None:
    for earlier in (b"", GET):
        with server.client() as client:
            client.send(earlier, sent)
            if earlier:
                assert client.answer().status == 200
            answer = client.answer()
            assert (answer.status, answer.code) == (400, "invalid_http")
            assert client.rest() == b""


def test_the_application_sees_a_client_with_a_broken_body_as_disconnected(server: Server) -> None:
    server.application.endings.clear()
    with server.client() as client:
        client.send(b"POST /read HTTP/1.1\r\nhost: x\r\n", CHUNKED, b"1\r\na\r\n")
        client.send(b"sesame\r\n")
        assert client.answer().code == "invalid_http"
    assert wait_until(lambda: server.application.endings == [("/read", "http.disconnect")], LATEST)


@pytest.mark.parametrize("path", [b"/early", b"/early-close", b"/few"])
@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"], ids=["keep", "close"])
@pytest.mark.parametrize("body", ["chunked", "counted"])
def test_an_answer_to_an_endless_body_arrives(server: Server, path: bytes, close: bytes, body: str) -> None:
    framing = CHUNKED if body == "chunked" else b"content-length: 99999999999\r\n\r\n"
    for _ in range(3):
        with server.client() as client:
            client.send(b"POST ", path, b" HTTP/1.1\r\nhost: x\r\n", close, framing)
            client.send_until_answered(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n", 0)
            client.socket.setblocking(True)
            answer = client.answer()
            assert (answer.status, answer.body) == (413, b"too large")
            assert answer.headers["connection"] == "close"
            assert client.rest() == b""


def test_an_answer_arrives_if_the_application_had_paused_reading() -> None:
    with serving() as server, server.client() as client:
        client.send(b"POST /early-late HTTP/1.1\r\nhost: x\r\n", CHUNKED)
        body = b"200000\r\n" + b"x" * 0x200000 + b"\r\n"
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        sender = threading.Thread(target=client.send, args=(body,))
        sender.start()
        assert wait_until(
            lambda: any(each.flow.read_paused for each in server.uvicorn.server_state.connections), LATEST
        )
        server.loop.call_soon_threadsafe(server.application.may_read.set)
        assert client.answer().status == 413
        sender.join()
        assert client.rest() == b""


@pytest.mark.parametrize(
    "more", [b"", b"\r\n", GET, b"x" * 1000], ids=["nothing", "a line end", "a request", "rubbish"]
)
def test_a_client_that_leaves_is_noticed_whatever_it_has_sent_behind_its_request(server: Server, more: bytes) -> None:
    server.application.endings.clear()
    server.application.watching.clear()
    with server.client() as client:
        client.send(b"POST /watch HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        assert server.application.watching.wait(LATEST)
        client.send(more)
    assert wait_until(lambda: server.application.endings == [("/watch", "http.disconnect")], LATEST)


def test_what_is_sent_behind_a_request_is_bounded_and_answered_afterwards(server: Server) -> None:
    count = 2 * ConnectionLimits().max_header_bytes // len(GET)
    with server.client() as client:
        sender = threading.Thread(target=client.send, args=(GET * count,))
        sender.start()
        assert all(client.answer().status == 200 for _ in range(count))
        sender.join()


def test_an_answer_waits_for_a_client_that_sends_all_of_its_body_first(server: Server) -> None:
    body = b"x" * 12_000_000
    with server.client() as client:
        client.send(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
        client.send(body)
        assert client.answer().status == 413
        assert client.rest() == b""


def test_a_client_that_never_stops_is_cut_off(server: Server) -> None:
    with server.client() as client:
        client.send(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
        sent = 0
        with pytest.raises(ConnectionError):  # noqa: PT012
            while sent < 100 * h11_protocol.LINGER_BYTES:
                sent += client.socket.send(b"x" * 65536)
    assert sent > h11_protocol.LINGER_BYTES / 2


def test_a_client_that_does_not_close_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11_protocol, "LINGER_SECONDS", SOON)
    with server.client() as client:
        client.send(b"sesame\r\n\r\n")
        assert client.answer().status == 400
        assert wait_until(lambda: server.is_idle, LATEST)


def test_connections_are_kept_after_answers_to_whole_requests(server: Server) -> None:
    body = b"x" * 300_000
    with server.client() as client:
        for path, status in (("/read", 200), ("/few", 413), ("/early", 413), ("/read", 200)):
            # A body small enough to arrive with its head is complete before the application answers.
            sent = body if path == "/read" else b"few"
            client.send(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(sent)), sent)
            answer = client.answer()
            assert answer.status == status
            assert "connection" not in answer.headers
            assert answer.body == (b"300000 bytes" if status == 200 else b"too large")


@pytest.mark.parametrize(
    "framing", [CHUNKED + b"1\r\na\r\n", b"content-length: 9\r\n\r\nfew"], ids=["chunked", "counted"]
)
@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_a_body_must_be_complete_in_time(framing: bytes, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        h11_protocol, "LINGER_SECONDS", 10 * LATEST
    )  # the application must not wait for the connection's end
    with serving(body_seconds=SOON) as server, server.client() as client:
        client.send(method.encode(), b" /read HTTP/1.1\r\nhost: x\r\n", framing)
        answer = client.answer(method)
        assert answer.status == 408
        assert method == "HEAD" or answer.code == "request_timeout"
        assert client.rest() == b""
        assert wait_until(lambda: server.application.endings == [("/read", "http.disconnect")], LATEST)


def test_a_body_that_trickles_gets_no_more_time() -> None:
    with serving(body_seconds=SOON) as server, server.client() as client:
        client.send(b"POST /read HTTP/1.1\r\nhost: x\r\n", CHUNKED)
        client.send_until_answered(b"1\r\na\r\n", SOON / 10)
        assert client.answer().code == "request_timeout"


def test_a_late_body_ends_an_answer_that_has_begun() -> None:
    with serving(body_seconds=SOON) as server, server.client() as client:
        client.send(b"POST /begin HTTP/1.1\r\nhost: x\r\n", CHUNKED)
        received = client.rest()
        assert received.startswith(b"HTTP/1.1 200")
        assert received.endswith(b"\r\n\r\n5\r\nbegun\r\n")
        assert wait_until(lambda: server.application.endings == [("/begin", "http.disconnect")], LATEST)


@pytest.mark.parametrize("expect", [b"", b"expect: 100-continue\r\n"], ids=["paused", "continue"])
def test_a_body_that_the_application_does_not_ask_for_is_not_late(expect: bytes) -> None:
    size = 1_000_000
    with serving(body_seconds=1.0) as server, server.client() as client:
        client.send(b"POST /late HTTP/1.1\r\nhost: x\r\n", expect, b"content-length: %d\r\n\r\n" % size)
        body = threading.Thread(target=client.send, args=(b"x" * size,))
        if not expect:
            body.start()
        assert not select.select([client.socket], [], [], 1.5)[0]
        server.loop.call_soon_threadsafe(server.application.may_read.set)
        if expect:
            assert client._receive()
            assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.received = b""
            body.start()
        assert client.answer().body == b"%d bytes" % size
        body.join()


def test_pipelined_requests_are_answered_in_turn() -> None:
    with serving(header_seconds=SOON) as server, server.client() as client:
        posts = [b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % n + b"x" * n for n in range(20)]
        client.send(*posts, GET[:-2])
        assert [client.answer().body for _ in posts] == [b"%d bytes" % n for n in range(20)]
        assert client.answer().code == "request_timeout"


def test_head_has_no_body(server: Server) -> None:
    with server.client() as client:
        for _ in range(2):
            client.send(b"HEAD /read HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.answer("HEAD").status == 200
        client.send(b"sesame\r\n\r\n")
        assert client.answer().code == "invalid_http"


@pytest.mark.parametrize("protocols", [b"websocket", b"h2c"])
def test_upgrades_are_served_as_plain_http(server: Server, protocols: bytes) -> None:
    with server.client() as client:
        for _ in range(2):
            client.send(
                GET[:-2], b"connection: upgrade\r\nupgrade: ", protocols, b"\r\nsec-websocket-version: 13\r\n\r\n"
            )
            assert client.answer().body == b"0 bytes"


def test_bytes_after_the_last_request_do_not_break_its_answer(server: Server) -> None:
    server.application.may_read.clear()
    with server.client() as client:
        client.send(b"POST /late HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx")
        assert wait_until(lambda: bool(server.uvicorn.server_state.tasks), LATEST)
        client.send(b"\r\n")
        server.loop.call_soon_threadsafe(server.application.may_read.set)
        assert client.answer().body == b"1 bytes"
        assert client.rest() == b""


@pytest.mark.parametrize("leave", [Client.vanish, lambda client: client.socket.close()], ids=["reset", "close"])
def test_clients_that_disconnect_leave_nothing_behind(server: Server, leave: Callable[[Client], None]) -> None:
    post = b"POST /read HTTP/1.1\r\nhost: x\r\n"
    begun = b"POST /begin HTTP/1.1\r\nhost: x\r\n" + CHUNKED
    refused = [b"sesame\r\n\r\n", padded(1_000_000), post + CHUNKED + b"sesame\r\n"]
    for sent in (b"", b"G", GET, GET[:-2], post + CHUNKED, begun, begun + b"1\r\na\r\n", *refused):
        with server.client() as client:
            client.send(sent)
            leave(client)
    assert wait_until(lambda: server.is_idle, LATEST)


def test_a_client_may_disconnect_just_before_its_answer(server: Server) -> None:
    """Half-closing the connection fails if the loop has not yet seen that the client disconnected."""
    with server.client() as client:
        client.send(b"HEAD /early-blocked HTTP/1.1\r\nhost: x\r\n", CHUNKED)
        server.application.blocks.wait()
    server.application.blocks.wait()
    assert wait_until(lambda: server.is_idle, LATEST)


def test_a_shutdown_does_not_wait_for_lingering_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11_protocol, "LINGER_SECONDS", 10 * LATEST)
    with serving() as server, server.client() as client:
        client.send(b"sesame\r\n\r\n")
        assert client.answer().status == 400
        server.uvicorn.should_exit = True
        assert wait_until(lambda: not server.uvicorn.server_state.connections, LATEST)
