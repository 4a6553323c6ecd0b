from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.clients.chat.conversation import open_source
from winnow.clients.chat.sources import PipedLines, decoded, trimmed


def piped(content: bytes, encoding: str = "utf-8") -> list[str]:
    source = PipedLines(io.TextIOWrapper(io.BytesIO(content), encoding=encoding))
    with source:
        return list(iter(source.read, None))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff"))), st.booleans())
def test_every_line_that_is_not_blank_is_a_message(lines: list[str], is_windows: bool) -> None:
    """U+2028 and U+0085 end no line, and line ends may be those of Windows."""
    content = ("\r\n" if is_windows else "\n").join(lines).encode()
    assert piped(content) == [line.strip() for line in lines if line.strip()]


def test_a_bom_is_no_part_of_the_first_message() -> None:
    assert piped(b"\xef\xbb\xbfhello\nworld") == ["hello", "world"]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_utf_8_is_read_whatever_the_locale_says(encoding: str) -> None:
    assert piped("café\n".encode(), encoding) == ["café"]
    assert piped(b"caf\xe9\n", "latin-1") == ["café"]


def test_bytes_that_are_no_text_spoil_their_line_alone() -> None:
    assert piped(b"caf\xe9\nhello\n") == ["caf\udce9", "hello"]
    assert decoded("\ud800", "utf-8") == "\ud800"


def test_without_standard_input_there_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    source = open_source(None)
    assert not source.is_interactive
    assert source.read() is None


@given(st.text("ab \n\t", max_size=20))
def test_only_blank_space_around_a_message_is_removed(text: str) -> None:
    kept = trimmed(text)
    assert kept.strip() == text.strip()
    assert kept in text
    assert kept == kept.rstrip()
    assert "\n" in kept or kept == kept.strip()
    assert not kept.startswith("\n")


def test_the_first_line_of_pasted_code_keeps_its_indentation() -> None:
    assert trimmed("\n\n    return 1\nelse:\n") == "    return 1\nelse:"
    assert trimmed("  hello \n") == "hello"
