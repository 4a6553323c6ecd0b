"""Text files as editors on other systems write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.clients.connection import read_api_key
from winnow.clients.text_files import read_text

KEY = "wk-0123456789"


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("text", ["", "a", "é\r\n\r\n", "a\0b\n"])
def test_a_byte_order_mark_is_no_text(text: str, mark: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(mark + text.encode())
    assert read_text(tmp_path / "file") == text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a = 1\nb = 'caf\xe9'\n".encode("latin-1"), r"line 2, byte 9 \(0xe9\).*UTF-8"),
        ("é = 1".encode("utf-16"), "UTF-16"),
        ("é = 1".encode("utf-32"), "UTF-32"),
        (codecs.BOM_UTF8 + b"\xff", r"line 1, byte 1 \(0xff\)"),
    ],
)
def test_other_encodings_are_named_with_their_place(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=f"file cannot be read: .*{words}") as caught:
        read_text(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", Path("a\0b")):
        with pytest.raises(ValueError, match="cannot be read: "):
            read_text(path)


@given(st.sampled_from([b"", codecs.BOM_UTF8]), st.sampled_from(["\n", "\r\n"]), st.integers(0, 3), st.booleans())
def test_a_key_is_found_among_blank_lines_and_comments(
    tmp_path_factory: pytest.TempPathFactory, mark: bytes, end: str, blank: int, comment: bool
) -> None:
    file = tmp_path_factory.mktemp("keys") / "key"
    lines = [*[""] * blank, *["# mine"] * comment, f"  {KEY} # the key" if comment else KEY, *[""] * blank]
    file.write_bytes(mark + end.join(lines).encode())
    assert read_api_key(file) == KEY


@pytest.mark.parametrize(
    ("text", "words"), [("", "no key"), ("# a\n\n", "no key"), ("a\nb\n", "2 keys"), (f"sha256:{'0' * 64}", "digest")]
)
def test_what_is_not_one_key_is_refused_without_showing_it(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_api_key(tmp_path / "key")
    assert "sha256:" not in str(caught.value)
