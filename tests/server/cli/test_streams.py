"""The installed command with streams, encodings and variables as shells, schedulers and notebooks leave them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from tests.live import WINNOW, ScriptedServer, scripted, wait_until
from tests.runs import make_run
from winnow.models.tokenizer import Tokenizer

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"]


@pytest.fixture(scope="module")
def url(tokenizer: Tokenizer) -> Iterator[str]:
    with ScriptedServer.start(scripted(tokenizer)) as server:
        yield f"{server.url}/v1"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `command` in a shell that fails as a pipe's first command does; `winnow` in it is the installed one."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"winnow() {{ {shlex.quote(WINNOW)} \"$@\"; }}; {command}"],
        input=b"", capture_output=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_is_no_error(closed: str) -> None:
    done = shell(f"winnow --version {closed}")
    assert (done.returncode, done.stderr) == (0, b"")
    is_shown = closed in ("<&-", "2>&-")
    assert done.stdout.decode() == (f"{version('winnow-llm')}\n" if is_shown else "")
    done = shell(f"winnow plan --unknown {closed}")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_server_without_streams_serves(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = f"exec {shlex.quote(sys.executable)} -m tests.scripted_serve serve --port 0 --no-canary <&- >&- 2>{log}"
    process = subprocess.Popen(["bash", "-c", program])
    try:
        assert wait_until(lambda: log.exists() and b"ready: http" in log.read_bytes(), 60)
        address = log.read_text().partition("ready: ")[2].split()[0]
        assert httpx.get(f"{address}/models", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    {"PYTHONIOENCODING": "utf-8"},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("arguments", ["--help", "plan", "plan --policy $'/caf\\xe9/☃'"])
def test_no_character_ends_a_command(arguments: str, encoding: dict[str, str]) -> None:
    done = shell(f"winnow {arguments}", **encoding)
    assert done.returncode == ("policy" in arguments), done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout or b"winnow: " in done.stderr


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_conversation_in_any_encoding(url: str, encoding: dict[str, str]) -> None:
    done = shell(f"printf 'caf\\xc3\\xa9 \\xe2\\x98\\x83?\\n/quit\\n' | winnow chat --url {url}", **encoding)
    assert done.returncode == 0, done.stderr
    assert b"best of" in done.stdout
    done = shell(f"printf 'caf\\xe9 \\xe2\\x98\\x83?\\n/quit\\n' | winnow chat --url {url}", **encoding)
    assert done.returncode in (0, 1), "what is no text in the terminal's encoding is refused"
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("sizes", [{"COLUMNS": "0", "LINES": "0"}, {"COLUMNS": "-3", "TERMINAL_WIDTH": "wide"}])
def test_the_size_of_no_terminal_is_not_read(sizes: dict[str, str]) -> None:
    """A shell without a terminal sets COLUMNS=0: errors of the chat were lost; a word was a traceback in --help."""
    done = shell("winnow chat --help; winnow chat --url http://127.0.0.1:9/v1", **sizes)
    assert done.stdout
    assert b"Traceback" not in done.stderr
    assert b"no server answers" in done.stderr


def test_a_notebooks_backend_is_not_read(url: str, tmp_path: Path) -> None:
    backend = "module://matplotlib_inline.backend_inline"
    make_run(tmp_path)
    done = shell(f"winnow report {tmp_path}", MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    few = f"--requests 4 --repeats 1 --warm-up 0 --rate 50 -k 1 --out {tmp_path / 'load'}"
    done = shell(f"winnow loadtest --url {url} {few}", MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "load" / "report.html").is_file()


@pytest.mark.parametrize(
    "command", ["winnow --help", "winnow plan", "winnow --version", "winnow distill --print-recipe"]
)
def test_a_reader_that_leaves_ends_the_command_without_a_word(command: str) -> None:
    done = shell(f"{command} | true")
    assert done.returncode in (0, 1)  # 0 if everything was in the pipe before its reader left
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["winnow --help", "winnow plan", "winnow --version"])
def test_output_on_a_full_disk_is_one_line(command: str) -> None:
    done = shell(f"{command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["winnow: the output cannot be written: No space left on device"]
