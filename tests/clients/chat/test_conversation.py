"""`winnow chat` without a terminal, against a real server and a scripted one."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

import httpx
import pytest

from tests.clients import scripts
from tests.clients.scripts import Script, error, progress, reply, stream, streaming
from tests.live import WINNOW, LiveServer
from winnow.clients import Client
from winnow.clients.chat import conversation
from winnow.clients.chat.conversation import INTERRUPTED, Conversation
from winnow.clients.chat.screen import Screen

Chat = Callable[..., tuple[int, str, str]]


def talk(url: str, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WINNOW, "chat", "--url", f"{url}/v1", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
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
    assert done.returncode == 1
    assert "[INST]" in done.stderr
    assert done.stdout.count("best of 16") == 1


def test_a_missing_server_is_one_line() -> None:
    done = talk("http://127.0.0.1:9", "Hello!\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("winnow: no server answers")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def chatting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chat:
    """Run a conversation with a scripted server in this process; return the exit status, the output and the errors."""

    def run(script: Script, typed: str, **options: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(conversation, "Client", functools.partial(Client, transport=httpx.MockTransport(script)))
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        defaults: dict[str, Any] = {"candidates": None, "show": False, "system": None}
        status = conversation.talk("http://winnow.test/v1", **{**defaults, **options})
        printed = capsys.readouterr()
        return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.out), printed.err

    return run


def dialogs(script: Script) -> list[list[str]]:
    return [[message["content"] for message in json.loads(item.content)["messages"]] for item in script.requests]


def test_the_dialog_grows_until_a_new_one_starts(chatting: Chat) -> None:
    script = Script([streaming(stream("Paris."))])
    status, printed, _ = chatting(script, "France?\nSpain?\n/new\nItaly?\n", system="Be brief.", api_key="sk-12345678")
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


def test_an_adaptive_answer_says_of_how_many_it_is_the_best(chatting: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    report = scripts.REPORT.model_copy(update={"waves": 1, "stopped_by": "reward", "requested": 16})
    monkeypatch.setattr(scripts, "REPORT", report)
    _, printed, _ = chatting(Script([streaming(stream())]), "France?\n")
    assert "best of 3 (at most 16) · R 0.750 (helpful)" in printed


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (reply(error("invalid_messages", "messages[0]: a template tag"), 400), "a template tag"),
        (streaming([*stream()[:6], httpx.ReadError("reset")]), "reset"),
        (reply(error("overloaded", "the queue is full"), 429), "the queue is full"),
    ],
)
def test_a_failed_question_is_removed_from_the_dialog(chatting: Chat, failure: httpx.Response, said: str) -> None:
    """Scripts see it in the exit status; the lines after it are sent all the same."""
    script = Script([failure, streaming(stream())])
    status, printed, errors = chatting(script, "first\nsecond\n")
    assert status == 1
    assert said in errors
    assert printed.endswith("winnow › Paris.\nbest of 3 · R 0.750 (helpful) · 0.00 s\n")
    assert dialogs(script) == [["first"], ["second"]]


@pytest.mark.parametrize("line", ["/nothing", "caf\udce9"])
def test_a_line_that_cannot_be_sent_is_a_failure(chatting: Chat, line: str) -> None:
    script = Script([streaming(stream())])
    status, _, errors = chatting(script, f"{line}\nsecond\n")
    assert (status, dialogs(script)) == (1, [["second"]])
    assert len(errors.splitlines()) == 1


def test_ctrl_c_ends_a_script(chatting: Chat) -> None:
    script = Script([streaming([*stream()[:6], KeyboardInterrupt()])])
    status, _, _ = chatting(script, "first\nsecond\n")
    assert (status, dialogs(script)) == (INTERRUPTED, [["first"]])


class Typed:
    """A person who types these messages, without a terminal."""

    is_interactive = True

    def __init__(self, *messages: str) -> None:
        self._rest = iter(messages)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self) -> str | None:
        return next(self._rest, None)


def test_ctrl_c_stops_an_answer_and_keeps_the_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = streaming([*stream()[:6], KeyboardInterrupt()])
    script = Script([streaming(stream()), stopped, reply(error("overloaded"), 429), streaming(stream())])
    source = Typed("France?", "Spain?", "full?", "/nothing", "//etc", "/quit", "never read")
    with Client("http://winnow.test/v1", max_retries=0, transport=httpx.MockTransport(script)) as client:
        assert Conversation(client, Screen(), source).run() == 0
    assert [dialog[-1] for dialog in dialogs(script)] == ["France?", "Spain?", "full?", "/etc"]
    assert dialogs(script)[-1] == ["France?", "Paris.", "/etc"]
    assert "stopped" in capsys.readouterr().out


def test_the_candidates_are_shown_best_first(chatting: Chat) -> None:
    script = Script([streaming(stream())])
    _, printed, _ = chatting(script, "hi\n/hide\nhi\n", show=True, candidates=3)
    assert re.findall(r"│ (0\.\d+) │ helpful", printed) == ["0.750", "0.500", "0.250"]
    assert [json.loads(item.content)["best_of_n"].get("return_candidates") for item in script.requests] == [True, False]
    assert {json.loads(item.content)["best_of_n"]["candidates"] for item in script.requests} == {3}


@pytest.mark.parametrize(("scored", "said"), [(0, "0/3 scored"), (2, "2/3 scored, best 0.50")])
def test_progress_is_shown_on_a_terminal(
    chatting: Chat, monkeypatch: pytest.MonkeyPatch, scored: int, said: str
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    opening, _, _, _, *rest = stream()
    _, printed, _ = chatting(Script([streaming([opening, progress(scored), *rest])]), "hi\n")
    assert said in printed
    assert "winnow › Paris.\n" in printed


HOSTILE = "a\x1b]52;c;eA==\x07\x9bb[/bold] :smile:\r\n\tc" + " word" * 60


def test_an_answer_is_printed_as_it_is_but_cannot_control_the_terminal(chatting: Chat) -> None:
    """A candidate may hold any character: escape sequences would move the cursor, or write to the clipboard."""
    _, printed, _ = chatting(Script([streaming(stream(HOSTILE))]), "hi\n")
    assert "winnow › a]52;c;eA==b[/bold] :smile:\n\tc" + " word" * 60 + "\n" in printed
    assert not set(printed) & {"\x1b", "\x07", "\x9b", "\r"}


def test_an_error_cannot_control_the_terminal(chatting: Chat) -> None:
    _, _, errors = chatting(Script([reply(error("invalid_request", HOSTILE), 400)]), "hi\n")
    assert "a]52" in errors
    assert not set(errors) & {"\x1b", "\x07", "\x9b", "\r"}


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_the_table_leaves_room_for_the_answers(chatting: Chat, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, printed, _ = chatting(Script([streaming(stream())]), "hi\n", show=True)
    assert "…" not in printed
    assert all(words in printed for words in ("rank", "R_c", "answer", "0.750", "0.250"))
    assert all(len(line) <= width for line in printed.splitlines())


@pytest.mark.parametrize("url", ["http://winnow.test", "winnow.test/v1"])
def test_a_malformed_address_is_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert conversation.talk(url, candidates=None, show=False, system=None) == 1
    assert "base_url" in capsys.readouterr().err
