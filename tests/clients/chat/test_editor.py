"""The line editor, driven by keys without a terminal."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from winnow.clients.chat.editor import HINT, Editor

UP, LEFT, END, ALT_ENTER, CTRL_J, CTRL_R, CTRL_C, CTRL_D = (
    "\x1b[A", "\x1b[D", "\x1b[F", "\x1b\r", "\n", "\x12", "\x03", "\x04",
)  # fmt: skip


class Printed(DummyOutput):
    """An output that keeps what the editor itself writes."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, data: str) -> None:
        self.text += data


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


def paste(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


def typed(keys: PipeInput, *bursts: str, **options: Any) -> list[str | None]:
    """Return the messages from keys; each burst is typed when the editor waits for a message."""
    editor = Editor(input=keys, output=DummyOutput(), **options)
    found = []
    with editor:
        for burst in bursts:
            keys.send_text(burst)
            found.append(editor.read())
    return found


@pytest.mark.parametrize(
    ("burst", "message"),
    [
        (f"helo{LEFT}l\r", "hello"),
        (f"b{LEFT}a{END}c\r", "abc"),
        (f"one{ALT_ENTER}two\r", "one\ntwo"),
        (f"one{CTRL_J}two\r", "one\ntwo"),
        (f"one{CTRL_J}", "one"),
        (paste("one\r\ntwo\rthree\n") + "\r", "one\ntwo\nthree"),
        (paste("    x\n    y") + "\r", "    x\n    y"),
        (paste("z" * 10_000) + "\r", "z" * 10_000),
        (paste("/quit\n") + "more\r", "/quit\nmore"),
        (paste("\x00 \x1b[31mred\x07") + "\r", "\x00 \x1b[31mred\x07"),
        ("\r \r\rhello\r", "hello"),
        (f"forget this{CTRL_C}hello\r", "hello"),
        (CTRL_D, None),
        (f"hello{CTRL_D}\r", "hello"),
    ],
)
def test_keys_make_messages(keys: PipeInput, burst: str, message: str | None) -> None:
    assert typed(keys, burst) == [message]


def test_a_paste_of_a_megabyte_is_one_message(keys: PipeInput) -> None:
    text = "some words of a line\n" * 50_000
    editor = Editor(input=keys, output=DummyOutput())
    with editor:
        keys.send_text(paste("first") + "\r")
        assert editor.read() == "first"
        feed = editor._input.vt100_parser.feed  # type: ignore[attr-defined]
        for start in range(0, len(text), 4096):  # less than a pipe holds, and nobody else reads it
            feed(("" if start else "\x1b[200~") + text[start : start + 4096])
        keys.send_text("\x1b[201~\r")
        assert editor.read() == text.rstrip()


def in_turn(editor: Editor, keys: PipeInput, *bursts: str) -> str | None:
    """Return the message from bursts of keys, each typed once the last one shows, as a person does."""
    rest = iter(bursts)

    def send(_: object) -> None:
        keys.send_text(next(rest, ""))

    rendered = editor._session.app.after_render
    rendered += send
    try:
        return editor.read()
    finally:
        rendered -= send


def test_earlier_messages_are_found(keys: PipeInput) -> None:
    editor = Editor(input=keys, output=DummyOutput())
    assert in_turn(editor, keys, paste("two\nlines"), "\r") == "two\nlines"
    assert in_turn(editor, keys, "first", "\r") == "first"
    assert in_turn(editor, keys, UP, UP, "!", "\r") == "two\nlines!"
    assert in_turn(editor, keys, CTRL_R, "fir", "\r", "\r") == "first"


def test_ctrl_c_on_an_empty_message_says_how_to_leave(keys: PipeInput) -> None:
    printed = Printed()
    keys.send_text(f"{CTRL_C}draft{CTRL_C}{CTRL_D}")
    assert Editor(input=keys, output=printed).read() is None
    assert printed.text.count(HINT) == 1


def test_the_history_file_is_private_and_lasts(keys: PipeInput, tmp_path: Path) -> None:
    path = tmp_path / "history"
    assert typed(keys, paste("two\nlines") + "\r", "first\r", history=path) == ["two\nlines", "first"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert in_turn(Editor(path, keys, DummyOutput()), keys, UP, UP, "\r") == "two\nlines"


def test_without_a_file_nothing_is_kept(keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed(keys, "secret\r")
    assert not list(tmp_path.iterdir())
    assert in_turn(Editor(input=keys, output=DummyOutput()), keys, UP, "new", "\r") == "new"


@pytest.mark.parametrize("name", [".", "absent/history", "/dev/full"])
def test_a_history_that_cannot_be_kept_is_refused(keys: PipeInput, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"--history .* cannot be used"):
        Editor(tmp_path / name, keys, DummyOutput())


def test_a_disk_that_is_full_by_now_does_not_end_the_conversation(
    keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileHistory, "store_string", full)
    assert typed(keys, "one\r", "two\r", history=tmp_path / "history") == ["one", "two"]
