"""Records of CSV files: what the standard library writes is read back; faults are one bad row each."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.errors import BadLine, RunError
from winnow.server.distill.csv_rows import records

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def read(content: str | bytes) -> list[tuple[int, object]]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return [(line, item.code if isinstance(item, BadLine) else item) for line, item in records(stream, "p.csv")]


@given(st.lists(st.tuples(cells, cells), max_size=6), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    """Also cells with line ends, quotes, delimiters, U+2028 and the like."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "category"), *rows])
    found = read("\ufeff" + file.getvalue())
    assert [item for _, item in found] == [
        {name: cell if cell.strip() else None for name, cell in zip(("prompt", "category"), row, strict=True)}
        for row in rows
    ]
    starts = file.getvalue().split("\n")
    assert all(starts[line - 1].startswith('"') for line, _ in found)


def test_cells_of_known_columns() -> None:
    text = (
        "id,is_safety,messages,prompt,\n"
        '7,True,"[{""role"": ""user"", ""content"": ""a""}]",,x\n'
        '8,FALSE,[oops,"[1, 2]",y\n'
        "\n"
    )
    assert read(text) == [
        (2, {"id": "7", "is_safety": True, "messages": [{"role": "user", "content": "a"}], "prompt": None}),
        (3, {"id": "8", "is_safety": False, "messages": "[oops", "prompt": "[1, 2]"}),
        (4, b""),
    ]


def test_a_record_at_fault_is_one_bad_row() -> None:
    content = b'prompt,id\na,1\nb,2,3\nc\n"d"e,4\ncaf\xe9,5\n' + b"x" * 200_000 + b",6\nf\rg,7\nlast,8\n" + b'"open,9\n'
    found = read(content)
    assert [(line, item if isinstance(item, str) else "good") for line, item in found] == [
        (2, "good"),
        (3, "invalid_csv"),
        (4, "invalid_csv"),
        (5, "invalid_csv"),
        (6, "invalid_utf8"),
        (7, "line_too_long"),
        (8, "invalid_csv"),
        (9, "good"),
        (10, "invalid_csv"),
    ]


def test_the_line_that_excel_reads_names_the_delimiter() -> None:
    assert read("\ufeffsep=;\r\nprompt;id\r\na, b, c;1\r\n") == [(3, {"prompt": "a, b, c", "id": "1"})]
    assert read("SEP=|\nprompt|id\na;b;c|1\n") == [(3, {"prompt": "a;b;c", "id": "1"})]


@pytest.mark.parametrize("cell", ["a line\n" * 30_000, "x" * 140_000 + "\nWhat is the rest?\n", 'x""' * 70_000 + "\ny"])
def test_the_lines_of_a_cell_that_is_too_long_are_no_rows(cell: str) -> None:
    """After such a cell's beginning, thousands of its lines were read as prompts."""
    with pytest.raises(RunError, match="row at line 3 goes on for more than 131,072 characters and several lines"):
        read(f'prompt\nfirst\n"{cell}"\nlast\n')
    assert [line for line, _ in read('prompt\n"' + "x" * 140_000 + '"\nlast\n')] == [2, 3]


def test_a_header_is_needed() -> None:
    assert read("") == read("\n\n") == []
    for content, said in (
        ("\nprompt\na\n", "begins with a blank line"),
        ("prompt,prompt\na,b\n", "two columns of one name"),
        ('"prompt"x\na\n', "header of p.csv is at fault: the row is not CSV"),
        ("prompt,id\ra,1\r", "a carriage return ends a line"),
        ("caf\udce9,prompt\na,b\n".encode(errors="surrogateescape"), "header of p.csv is not UTF-8"),
        ("What is it?\nWhy?\n", r"no column prompt or .*; its first line, the header, has: What is it\?"),
        ('[{"prompt": "a"}]', "no column prompt or "),
    ):
        with pytest.raises(RunError, match=said):
            read(content)
