"""Values of a JSON file: found whatever the layout of the text, with the line each begins on; faults are named."""

from __future__ import annotations

import io
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.errors import BadLine, RunError
from winnow.server.distill.json_values import is_json_lines, values
from winnow.server.distill.lines import BOM, MAX_ROW_BYTES

texts = st.text(st.sampled_from('ab"\\[]{},:\n \u2028\x85é'), max_size=8)
anything: st.SearchStrategy[Any] = st.recursive(
    texts | st.integers(-9, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(st.dictionaries(texts, anything, min_size=1, max_size=3), max_size=5)


class Pieces(io.BytesIO):
    """A file that is read a few bytes at a time, so that pieces end within strings, escapes and characters."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.size)


def read(content: bytes, size: int = 1 << 20) -> list[tuple[int, bytes | BadLine]]:
    return list(values(Pieces(content, size), "p.json"))


@given(objects, st.integers(1, 9), st.sampled_from([None, 1]), st.booleans(), st.booleans())
def test_an_array_gives_its_elements(
    rows: list[object], size: int, indent: int | None, ascii_only: bool, marked: bool
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode()
    found = read(BOM * (marked and size >= len(BOM)) + b" \n" + text + b"\n", size)
    assert [orjson.loads(value) for _, value in found if isinstance(value, bytes)] == rows
    lines = (b" \n" + text).split(b"\n")
    assert all(lines[line - 1].strip(b" \t\r")[:1] in (b"{", b"[") for line, _ in found)


@given(objects, st.integers(1, 9))
def test_objects_on_several_lines_are_values_too(rows: list[object], size: int) -> None:
    """As `jq .` prints them."""
    text = "\n".join(json.dumps(row, indent=2) for row in rows).encode()
    found = read(text, size)
    assert [orjson.loads(value) for _, value in found if isinstance(value, bytes)] == rows
    assert all(text.split(b"\n")[line - 1] == b"{" for line, _ in found)
    if rows:
        assert not is_json_lines(text)


@given(objects.filter(bool), st.data())
def test_an_array_that_is_cut_off_is_refused(rows: list[object], data: st.DataObject) -> None:
    text = json.dumps(rows).encode()
    with pytest.raises(RunError, match=r"p\.json is not a whole array: element"):
        read(text[: data.draw(st.integers(1, len(text) - 1))])


@pytest.mark.parametrize(
    ("content", "is_lines"),
    [
        (b'{"prompt": "a"}\n{"prompt": "b"}', True),
        (b'{"prompt": "a"', True),
        (b'{"prompt": "a"\n{"prompt": "b"}\n', True),
        (b'["a"]\n{"prompt": "b"}', True),
        (b"[INFO] no JSON\n", True),
        (b"", True),
        (b"plain text", True),
        (b'[{"prompt": "a"}]', False),
        (b'[{"prompt": "a"}]\n\n', False),
        (BOM + b'\r\n\t[\n{"prompt": "a"}', False),
        (b"[]", False),
        (b'{\n"prompt": "a"\n}', False),
        (b'["one", "two"]', False),
    ],
)
def test_arrays_and_lines_are_told_apart(content: bytes, is_lines: bool) -> None:
    assert is_json_lines(content) == is_lines


def test_a_value_at_fault_is_one_bad_row() -> None:
    long = b'"' + b"x" * MAX_ROW_BYTES + b'"'
    content = b'[{"a": NaN},\n{"a": 1} {"b": 2},,\n' + long + b',\n{"a": "\xff"}, {"b": 1]\n, {"c": 1},\n]'
    found = read(content)
    assert [(line, value if isinstance(value, bytes) else value.code) for line, value in found] == [
        (1, b'{"a": NaN}'),
        (2, b'{"a": 1} {"b": 2}'),
        (2, "invalid_json"),
        (3, "line_too_long"),
        (4, b'{"a": "\xff"}'),
        (4, b'{"b": 1]'),
        (5, b'{"c": 1}'),
        (6, "invalid_json"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"a": 1},\n{"a": 2}', "element 2, at line 2"),
        (b'[{"a": 1},\n{"a": "2}]', "element 2, at line 2"),
        (b'[{"a": 1}]\n\n[{"a": 2}]', "goes on after its array's end, at line 3"),
        (b'{"a": 1}\n{"a":\n', "ends within value 2, at line 2"),
        (b"prompt,id\n", "begins with neither"),
    ],
)
def test_a_text_that_is_no_array_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(RunError, match=said):
        read(content)


def test_memory_is_that_of_one_value() -> None:
    """A value that never ends is not held, however long the file is."""
    piece = b"x" * (1 << 20)
    stream = iter([b'[{"a": "', *[piece] * 40])

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return next(stream, b"")

    import tracemalloc

    tracemalloc.start()
    with pytest.raises(RunError, match="element 1, at line 1"):
        list(values(Endless(), "p.json"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * MAX_ROW_BYTES
