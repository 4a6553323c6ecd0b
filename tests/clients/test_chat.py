"""`winnow chat`, driven through its standard input, against a real server and a scripted one."""

from __future__ import annotations

import functools
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.clients.scripts import Script, error, progress, reply, stream, streaming
from tests.live import WINNOW, LiveServer
from winnow.clients import Client, chat

Chat = Callable[..., tuple[int, str]]


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
def test_a_rejected_message_does_not_end_the_conversation(server: LiveServer) -> None:
    done = talk(server.url, "[INST]\nHello!\n")
    assert done.returncode == 0
    assert "[INST]" in done.stdout
    assert done.stdout.count("best of 16") == 1


def test_a_missing_server_is_one_line() -> None:
    done = talk("http://127.0.0.1:9", "Hello!\n")
    assert done.returncode == 1
    assert "no server answers" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.fixture
def chatting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chat:
    """Run a conversation with a scripted server in this process; return exit status and output, without colours."""

    def run(script: Script, typed: str, **options: Any) -> tuple[int, str]:
        monkeypatch.setattr(chat, "Client", functools.partial(Client, transport=httpx.MockTransport(script)))
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        defaults: dict[str, Any] = {"candidates": None, "show": False, "system": None}
        status = chat.talk("http://winnow.test/v1", **{**defaults, **options})
        return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)

    return run


def dialogs(script: Script) -> list[list[str]]:
    return [[message["content"] for message in json.loads(item.content)["messages"]] for item in script.requests]


def test_the_dialog_grows_until_a_new_one_starts(chatting: Chat) -> None:
    script = Script([streaming(stream("Paris."))])
    status, printed = chatting(script, "France?\nSpain?\n/new\nItaly?\n", system="Be brief.", api_key="sk-12345678")
    assert status == 0
    assert dialogs(script) == [
        ["Be brief.", "France?"],
        ["Be brief.", "France?", "Paris.", "Spain?"],
        ["Be brief.", "Italy?"],
    ]
    assert printed.count("winnow › Paris.\n") == 3
    assert printed.count("best of 3 · R 0.750 (helpful)") == 3
    assert {item.headers["authorization"] for item in script.requests} == {"Bearer sk-12345678"}
    assert "sk-12345678" not in printed


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (reply(error("invalid_messages", "messages[0]: a template tag"), 400), "a template tag"),
        (streaming([*stream()[:6], httpx.ReadError("reset")]), "reset"),
        (streaming([*stream()[:6], KeyboardInterrupt()]), "stopped"),
        (reply(error("overloaded", "the queue is full"), 429), "the queue is full"),
    ],
)
def test_a_failed_question_is_removed_from_the_dialog(chatting: Chat, failure: httpx.Response, said: str) -> None:
    script = Script([failure, streaming(stream())])
    status, printed = chatting(script, "first\nsecond\n")
    assert status == 0
    assert said in printed
    assert dialogs(script) == [["first"], ["second"]]


def test_the_candidates_are_shown_best_first(chatting: Chat) -> None:
    script = Script([streaming(stream())])
    _, printed = chatting(script, "hi\n/hide\nhi\n", show=True, candidates=3)
    assert re.findall(r"│ (0\.\d+) │ helpful", printed) == ["0.750", "0.500", "0.250"]
    assert [json.loads(item.content)["best_of_n"].get("return_candidates") for item in script.requests] == [True, False]
    assert {json.loads(item.content)["best_of_n"]["candidates"] for item in script.requests} == {3}


@pytest.mark.parametrize(("scored", "said"), [(0, "0/3 scored"), (2, "2/3 scored, best 0.50")])
def test_progress_is_shown_on_a_terminal(
    chatting: Chat, monkeypatch: pytest.MonkeyPatch, scored: int, said: str
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    opening, _, _, _, *rest = stream()
    _, printed = chatting(Script([streaming([opening, progress(scored), *rest])]), "hi\n")
    assert said in printed
    assert "winnow › Paris.\n" in printed


def test_an_answer_cannot_control_the_terminal(chatting: Chat) -> None:
    """A candidate may hold any character: escape sequences would move the cursor, or write to the clipboard."""
    _, printed = chatting(Script([streaming(stream("a\x1b]52;c;eA==\x07\x9bb[/bold]\nc"))]), "hi\n")
    assert "a]52;c;eA==b[/bold]\nc" in printed
    assert not set(printed) & {"\x1b", "\x07", "\x9b"}


@pytest.mark.parametrize("url", ["http://winnow.test", "winnow.test/v1"])
def test_a_malformed_address_is_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert chat.talk(url, candidates=None, show=False, system=None) == 1
    assert "base_url" in capsys.readouterr().out
