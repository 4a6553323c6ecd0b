"""Lines of prompt and trace files: where they end, and where they are at fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.text_lines import read_lines

texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).filter(str.strip)


@given(st.lists(texts, min_size=1), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_only_line_feeds_end_a_line(
    tmp_path_factory: pytest.TempPathFactory, given: list[str], end: str, marked: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "prompts.txt"
    path.write_bytes((end.join(given) + end).encode("utf-8-sig" if marked else "utf-8"))
    assert read_lines(path, "prompts", "prompt", str) == [
        line.removeprefix("\ufeff") if not (place or marked) else line for place, line in enumerate(given)
    ]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_a_separator_of_unicode_is_part_of_a_prompt(tmp_path: Path, odd: str) -> None:
    """The standard library's `splitlines` breaks at all of these."""
    path = tmp_path / "prompts.txt"
    path.write_text(f"one{odd}two\nthree\n", encoding="utf-8")
    assert read_lines(path, "prompts", "prompt", str) == [f"one{odd}two", "three"]


def test_a_fault_has_the_line_that_editors_show(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes("1\n\n\u20282\nx\n".encode())
    with pytest.raises(ScenarioError, match="line 4"):
        read_lines(path, "trace", "arrival", float)


def test_a_file_without_items_or_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    for content, words in ((b"\xef\xbb\xbf\n \n", "has no prompt"), (b"caf\xe9\n", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(ScenarioError, match=words):
            read_lines(path, "prompts", "prompt", str)
