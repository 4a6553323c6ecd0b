"""Both clients on real sockets: faults of a server or a network, and the client's reactions."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import httpx
import pytest

from tests.clients.any_client import Kind, opened
from tests.clients.peer import Peer, reset
from tests.clients.scripts import completion, stream
from winnow.clients import Answer, AsyncClient, Client, ConnectionFailed, Piece, StreamBroken, TimedOut

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = completion().model_dump_json().encode()
PLAIN = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes, size: int) -> list[bytes]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]


async def test_nothing_listens_at_the_address(client_kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with opened(client_kind, f"http://127.0.0.1:{port}/v1") as client:
        with pytest.raises(
            ConnectionFailed, match=f"no server answers at http://127.0.0.1:{port}/v1: .*refused|failed"
        ):
            await client.answer("hi")
        assert not await client.ready()
    assert len(client.pauses) == 2


async def test_a_call_is_retried_if_the_connection_is_lost_before_the_answer(client_kind: Kind) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        if number == 1:
            return  # closed without a word
        if number == 2:
            reset(connection)
        else:
            connection.sendall(PLAIN)

    peer = Peer(serve)
    with peer.listening() as url:
        async with opened(client_kind, url) as client:
            assert (await client.answer("hi", model="m")).text == "Paris."
    assert len(peer.requests) == 3
    assert len(set(peer.requests)) == 1


async def test_an_answer_cut_off_is_not_retried(client_kind: Kind) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        connection.sendall(PLAIN[:-20])

    peer = Peer(serve)
    with peer.listening() as url:
        async with opened(client_kind, url) as client:
            with pytest.raises(ConnectionFailed):
                await client.answer("hi", model="m")
    assert len(peer.requests) == 1


@pytest.mark.parametrize("end", [socket.socket.close, reset])
async def test_a_stream_cut_off_is_broken(client_kind: Kind, end: Callable[[socket.socket], None]) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        connection.sendall(OPEN + b"".join(chunked(b"".join(stream()), 50)[:20]))
        read.wait(10)
        end(connection)

    peer, read = Peer(serve), threading.Event()
    with peer.listening() as url:
        async with (
            opened(client_kind, url) as client,
            aclosing(client.events("hi", model="m")) as events,
        ):
            await anext(events)
            read.set()
            with pytest.raises(StreamBroken):
                _ = [event async for event in events]
    assert len(peer.requests) == 1


async def test_silence_is_a_timeout(client_kind: Kind) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        connection.recv(1)  # until the client leaves

    peer = Peer(serve)
    with peer.listening() as url:
        async with opened(client_kind, url, timeout=0.2) as client:
            with pytest.raises(TimedOut, match="did not answer in time"):
                await client.answer("hi", model="m")
    assert len(peer.requests) == 1


async def test_a_connection_serves_plain_calls_and_streams_in_turn(client_kind: Kind) -> None:
    """A stream read to its end leaves its connection usable; chunks end inside characters."""
    text = "Grüße, 🙂\u2028…"

    def serve(connection: socket.socket, number: int) -> None:
        while request := peer.take(connection):
            if b'"stream": true' in request:
                for piece in [OPEN, *chunked(b"".join(stream(text)), 7), b"0\r\n\r\n"]:
                    connection.sendall(piece)
            else:
                connection.sendall(PLAIN)

    peer = Peer(serve)
    with peer.listening() as url:
        async with opened(client_kind, url) as client:
            for _ in range(3):
                await client.answer("hi", model="m")
                events = [event async for event in client.events("hi", model="m")]
                assert "".join(event.text for event in events if isinstance(event, Piece)) == text
                assert isinstance(events[-1], Answer)
    assert (peer.connections, len(peer.requests)) == (1, 6)


async def test_leaving_a_stream_ends_the_request(client_kind: Kind) -> None:
    """The server sees the connection end, and aborts the candidates."""

    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        connection.sendall(OPEN + b"".join(chunked(b"".join(stream()), 999)[:2]))
        if not connection.recv(1):
            peer.left.set()

    peer = Peer(serve)
    with peer.listening() as url:
        async with opened(client_kind, url) as client:
            async with aclosing(client.events("hi", model="m")) as events:
                await anext(events)
            assert await asyncio.to_thread(peer.left.wait, 10)


async def test_cancelling_an_answer_ends_the_request() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        peer.take(connection)
        arrived.set()
        if not connection.recv(1):
            peer.left.set()

    peer, arrived = Peer(serve), threading.Event()
    with peer.listening() as url:
        async with AsyncClient(url, transport=httpx.AsyncHTTPTransport()) as client:
            asking = asyncio.create_task(client.answer("hi", model="m"))
            assert await asyncio.to_thread(arrived.wait, 10)
            asking.cancel()
            assert await asyncio.to_thread(peer.left.wait, 10)
            with pytest.raises(asyncio.CancelledError):
                await asking


def test_threads_share_a_client() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        while peer.take(connection):
            connection.sendall(PLAIN)

    peer = Peer(serve)
    with peer.listening() as url, Client(url, transport=httpx.HTTPTransport()) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.answer("hi", model="m").text, range(40)))
    assert answers == ["Paris."] * 40
    ids = {match[1] for request in peer.requests if (match := re.search(rb"(?i)x-request-id: (\S+)", request))}
    assert len(ids) == 40
