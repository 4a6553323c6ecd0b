from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.clients.chat.commands import COMMANDS, KEYS, Unsendable, help_text, parse

LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_its_name_alone(command: str) -> None:
    assert parse(command) == (command, "")
    assert parse(f"/{command}") == (None, command)
    assert parse(f"{command}\nand more") == (None, f"{command}\nand more")


@given(LINES)
def test_every_line_can_be_sent(line: str) -> None:
    assert parse(f"/{line}" if line.startswith("/") else line) == (None, line)


@given(LINES, LINES)
def test_several_lines_are_sent_as_they_are(first: str, second: str) -> None:
    """Pasted code may begin with `//`, which must not lose a slash."""
    assert parse(f"//{first}\n{second}") == (None, f"//{first}\n{second}")


@pytest.mark.parametrize("line", ["/", "/etc/passwd", "/Quit", "/help me", "/tmp is full"])
def test_an_unknown_command_says_how_to_send_it(line: str) -> None:
    with pytest.raises(Unsendable, match=f"no command {line.split()[0]};.* type /{line.split()[0]} …"):
        parse(line)


@pytest.mark.parametrize("text", ["caf\udce9", "/\udcff", "\ud800"])
def test_bytes_that_are_no_text_are_refused(text: str) -> None:
    with pytest.raises(Unsendable, match="UTF-8"):
        parse(text)


def test_the_help_names_everything() -> None:
    assert all(name in help_text() for name in [*COMMANDS, *KEYS, "//"])
