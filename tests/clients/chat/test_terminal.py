"""`winnow chat` in a real pseudo-terminal: what the keyboard sends, and how the terminal is left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.clients.chat.test_editor import CTRL_C, CTRL_D, CTRL_R, LEFT, paste
from tests.clients.peer import Peer, read_request
from tests.clients.scripts import MODELS, stream

COMMAND = [sys.executable, "-c", "from winnow.server.cli.main import main; main()", "chat", "--url"]
PATIENCE = 30.0
"""Seconds to wait for a text before the test fails."""


@dataclass
class Terminal:
    """The screen side of a pseudo-terminal."""

    master: int
    process: subprocess.Popen[bytes]
    seen: bytes = b""

    def wait_for(self, *texts: str) -> None:
        """Read until the texts appear, one after another, in what has not been looked at yet."""
        deadline = time.monotonic() + PATIENCE
        for text in texts:
            while (place := self.seen.find(text.encode())) < 0:
                ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
                assert ready, f"{text!r} did not appear in {self.seen!r}"
                self.read()
            self.seen = self.seen[place + len(text.encode()) :]

    def read(self) -> None:
        """Read what is there, without colours and movements of the cursor."""
        self.seen = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self.seen + os.read(self.master, 65536))

    def type(self, keys: str) -> None:
        """Type the keys, while what the program prints is read."""
        rest = keys.encode()
        while rest:
            readable, writable, _ = select.select([self.master], [self.master], [], PATIENCE)
            assert readable or writable
            if readable:
                self.read()
            if writable:
                rest = rest[os.write(self.master, rest[:512]) :]

    def modes(self) -> list[object]:
        """Return how the terminal treats what is typed."""
        return termios.tcgetattr(self.master)[:4]


def as_from_a_shell() -> None:
    """Take the terminal, and Ctrl-C even where these tests run in the background, whose children ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def chatting(url: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, url],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=as_from_a_shell,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": "", "PYTHONUTF8": "1"},
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@dataclass
class Server:
    """Answers `Paris.`; an answer to `slow` ends once it may."""

    messages: list[str] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)

    def __call__(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(PATIENCE)
        while request := read_request(connection):
            if request.startswith(b"GET"):
                self.send(connection, MODELS.model_dump_json().encode())
                continue
            self.messages.append(json.loads(request[request.index(b"{") :])["messages"][-1]["content"])
            if self.messages[-1] == "slow":
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"".join(stream()[:5]))
                self.may_end.wait(PATIENCE)
                connection.sendall(b"".join(stream()[5:]))
                return
            self.send(connection, b"".join(stream()))

    @staticmethod
    def send(connection: socket.socket, content: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def terminal(server: Server) -> Iterator[Terminal]:
    with Peer(server).listening() as url, chatting(url) as shown:
        try:
            yield shown
        finally:
            server.may_end.set()


def test_a_conversation_by_keyboard(server: Server, terminal: Terminal) -> None:
    before = terminal.modes()
    terminal.wait_for("you › ")
    answered = ("winnow › ", "Paris.", "best of 3", "you › ")
    terminal.type(f"helo{LEFT}l\r")
    terminal.wait_for(*answered)
    terminal.type(paste("z" * 10_000))
    terminal.type("\r")
    terminal.wait_for(*answered)
    terminal.type("y" * 10_000 + "\nlines of a terminal\nthat marks no pastes\n")
    terminal.wait_for(*answered)
    terminal.type(paste("one\rtwo\r\rthree") + "\r")
    terminal.wait_for(*answered)
    terminal.type(f"{CTRL_R}hell")
    terminal.wait_for("hello")
    terminal.type("\r\r")
    terminal.wait_for(*answered)
    terminal.type("slow\r")
    terminal.wait_for("winnow › ", "Par")
    terminal.type(CTRL_C)
    terminal.wait_for("stopped", "you › ")
    terminal.type("slow\r")
    terminal.wait_for("winnow › ", "Par")
    terminal.type(paste("typed\rahead") + "\r")
    server.may_end.set()
    terminal.wait_for("is.", "best of 3", "you › ", "typed", "ahead", *answered)
    terminal.type(CTRL_D)
    assert terminal.process.wait(PATIENCE) == 0
    unmarked = "y" * 10_000 + "\nlines of a terminal\nthat marks no pastes"
    assert server.messages[:4] == ["hello", "z" * 10_000, unmarked, "one\ntwo\n\nthree"]
    assert server.messages[4:] == ["hello", "slow", "slow", "typed\nahead"]
    assert terminal.modes() == before


@pytest.mark.parametrize("message", ["", "slow"])
def test_a_terminal_is_left_as_it_was(terminal: Terminal, message: str) -> None:
    """SIGTERM used to leave it without an echo."""
    before = terminal.modes()
    terminal.wait_for("you › ")
    if message:
        terminal.type(f"{message}\r")
        terminal.wait_for("winnow › ", "Par")
    assert terminal.modes() != before
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert terminal.modes() == before
