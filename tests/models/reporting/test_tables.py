from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from winnow.models.reporting.tables import print_table, stacked

WORDS = st.text("abcdefgh", min_size=1, max_size=14)


def table(columns: int, rows: int, head: str = "name") -> Table:
    made = Table("", *(f"column{number}" for number in range(columns)), title="title", caption="caption")
    for row in range(rows):
        made.add_row(f"{head}{row}", *(f"cell{row}.{number}" for number in range(columns)))
    return made


def printed(what: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_table(console, what)
    return console.export_text()


@given(st.integers(1, 14), st.integers(1, 4), st.integers(30, 200))
def test_every_cell_is_shown_whole_at_every_width(columns: int, rows: int, width: int) -> None:
    text = printed(table(columns, rows), width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text
    assert text.count("title") == text.count("caption") == 1
    for number in range(columns):
        assert text.count(f"column{number} ") == 1
        assert all(text.count(f"cell{row}.{number} ") == 1 for row in range(rows))


@given(st.lists(WORDS, min_size=2, max_size=6), st.integers(30, 60))
def test_the_first_column_is_repeated_and_folds(words: list[str], width: int) -> None:
    name = " ".join(words)
    made = Table("name", *(f"column{number}" for number in range(6)))
    made.add_row(Text(name), *["1"] * 6)
    parts = stacked(made, Console(width=width, file=io.StringIO()))
    text = "".join(printed(part, width) for part in parts)
    assert len(parts) > 1
    assert text.count("name") == len(parts)
    letters = "".join(character for character in text if character in "abcdefgh")
    assert len(letters) >= len(parts) * len(name.replace(" ", ""))


@pytest.mark.parametrize("box", [SIMPLE_HEAD, None])
def test_a_part_looks_like_the_whole(box: object) -> None:
    whole = Table("a", *["column"] * 9, box=box, padding=(0, 1, 0, 0))  # type: ignore[arg-type]
    whole.add_row("x", *["1"] * 9, style="bold")
    for part in stacked(whole, Console(width=40, file=io.StringIO())):
        assert (part.box, part.padding, [row.style for row in part.rows]) == (whole.box, whole.padding, ["bold"])
