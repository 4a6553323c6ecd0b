"""`winnow chat` against a real server, driven as a person would: through its standard input."""

from __future__ import annotations

import subprocess

import pytest

from tests.live import WINNOW, LiveServer


def talk(url: str, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WINNOW, "chat", "--url", f"{url}/v1", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"COLUMNS": "160", "PATH": ""},
    )


@pytest.mark.engine
def test_a_conversation_with_candidates_shown(server: LiveServer) -> None:
    typed = "What is the capital of France?\nAnd of Spain?\n/hide\nHello!\n/new\n/help\n/quit\n"
    done = talk(server.url, typed, "--show", "--candidates", "4", "--system", "Answer politely.")
    assert done.returncode == 0, done.stderr
    assert "winnow-demo" in done.stdout
    assert done.stdout.count("R_h") == 2
    assert done.stdout.count("best of 4") == 3


@pytest.mark.engine
def test_a_refused_message_does_not_end_the_conversation(server: LiveServer) -> None:
    done = talk(server.url, "[INST]\nHello!\n")
    assert done.returncode == 0
    assert "[INST]" in done.stdout
    assert done.stdout.count("best of 16") == 1


def test_no_server_is_one_line() -> None:
    done = talk("http://127.0.0.1:9", "Hello!\n")
    assert done.returncode == 1
    assert "no server answers" in done.stdout
    assert "Traceback" not in done.stderr
