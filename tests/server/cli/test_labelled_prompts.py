from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.errors import SettingsError
from winnow.server.cli.labelled_prompts import LabelledPrompt, read_labelled

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
ROWS = st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=5)
SECRET = "an unspeakable question"


def pairs(found: list[LabelledPrompt]) -> list[tuple[str, bool]]:
    return [(item.text, item.is_harmful) for item in found]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts") / "prompts"


@given(rows=ROWS, mark=st.sampled_from(["", "\ufeff"]), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines(file: Path, rows: list[tuple[str, bool]], mark: str, end: str) -> None:
    lines = [json.dumps({"prompt": text, "harmful": label, "other": 1}, ensure_ascii=False) for text, label in rows]
    file.write_bytes((mark + end.join(lines)).encode())
    found = read_labelled(file)
    assert pairs(found) == rows
    assert [item.line for item in found] == [1 + index * len(end.strip("\r")) for index in range(len(rows))]


@given(
    rows=ROWS, delimiter=st.sampled_from(",;\t"), label=st.sampled_from([str, str.upper, lambda value: f" {value} "])
)
def test_csv(file: Path, rows: list[tuple[str, bool]], delimiter: str, label: object) -> None:
    assert callable(label)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("Harmful", "id", "Prompt"), *((label(str(value)), 7, prompt) for prompt, value in rows)])
    file.write_bytes(text.getvalue().encode())
    assert pairs(read_labelled(file)) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: the header must have one column prompt and one harmful"),
        (b"prompt,harmful\n", "holds no prompts"),
        (b"prompt,label\nHello,true\n", "one column harmful"),
        (b"prompt,harmful,prompt\n", "one column prompt"),
        (b"prompt,harmful\nHello,true\n" + SECRET.encode() + b",yes\n", "line 3: harmful must be true or false"),
        (b"prompt,harmful\n,true\n", "line 2: prompt must be a text"),
        (b"prompt,harmful\n" + SECRET.encode() + b"\n", "line 2: harmful must be"),
        (b'prompt,harmful\n"' + SECRET.encode() + b",true\n", "line 2: not a row of CSV"),
        (b'{"prompt": "Hello", "harmful": false}\n\n{"prompt": "' + SECRET.encode(), "line 3: not JSON"),
        (b'{"prompt": "Hello", "harmful": false}\n["' + SECRET.encode() + b'"]', "line 2: not a JSON object"),
        (b'{"prompt": "Hello", "harmful": "false"}', "line 1: harmful must be"),
        (b'{"prompt": "Hello", "harmful": 1}', "line 1: harmful must be"),
        (b'{"prompt": "Hello"}', "line 1: harmful must be"),
        (b'{"prompt": null, "harmful": true}', "line 1: prompt must be"),
        (b'{"prompt": " ", "harmful": true}', "line 1: prompt must be"),
        (b'{"prompt": "\\ud800", "harmful": true}', "line 1: not JSON"),
        (b'{"prompt": "\xff", "harmful": true}', "not UTF-8"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_without_its_text(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        read_labelled(tmp_path / "p")
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SettingsError, match=r"prompts: .* cannot be read"):
            read_labelled(path)
