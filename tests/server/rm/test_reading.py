"""Reading of data files: the same rows from every format, and bad rows with their places."""

from __future__ import annotations

import csv
import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from winnow.models.errors import BadLine, RunError
from winnow.server.rm.comparisons import rows_of
from winnow.server.rm.reading import SHOWN, BadRow, read, summary
from winnow.server.rm.rows import labelled

LABELS: list[dict[str, Any]] = [
    {"prompt": "Hi", "response": "score 1", "is_safe": True, "prompt_harmful": False},
    {"prompt": "Yo", "response": "score 0", "is_safe": False, "prompt_harmful": True},
]
PREFERENCES: list[dict[str, Any]] = [
    {"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": 8.5, "score_rejected": 3, "category": "x"},
    {"prompt": "Yo", "chosen": "c", "rejected": "d", "score_chosen": 2, "score_rejected": 1, "category": "y"},
]


def written(folder: Path, rows: list[dict[str, Any]], kind: str) -> str:
    path = folder / f"rows.{kind}"
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(json.dumps(rows) if kind == "json" else lines)
    return str(path)


@pytest.mark.parametrize("kind", ["json", "jsonl.gz", "csv", "parquet"])
def test_every_format_gives_the_same(tmp_path: Path, kind: str) -> None:
    """A table's rows once had the columns of prompts alone."""
    for rows, parse in ((LABELS, labelled), (PREFERENCES, partial(rows_of, role="safety"))):
        plain, other = (read([written(tmp_path, rows, one)], parse) for one in ("jsonl", kind))
        assert [place.item for place in other.items] == [place.item for place in plain.items]
        assert (other.rows, other.bad) == (2, [])


def test_several_files_are_one_data_set(tmp_path: Path) -> None:
    names = [written(tmp_path, LABELS, kind) for kind in ("jsonl", "csv")]
    found = read(names, labelled)
    assert (found.name, found.rows, len(found.items)) == ("rows.jsonl, rows.csv", 4, 4)


def test_bad_rows_have_their_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(LABELS[0]) + '\n\n{"prompt": "x"}\nNaN\n')
    found = read([str(path)], labelled)
    assert [(row.file, row.line) for row in found.bad] == [("rows.jsonl", 3), ("rows.jsonl", 4)]
    assert found.rows == 3


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    def refused(_: object) -> list[object]:
        raise BadLine("x", "because")

    with pytest.raises(RunError, match=r"none of the 2 rows .* line 1 of rows\.jsonl: because"):
        read([written(tmp_path, LABELS, "jsonl")], refused)


def test_an_error_names_no_option_that_the_command_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    (tmp_path / "a.jsonl").write_bytes(b"\n\n")
    (tmp_path / "none").mkdir()
    for name, reason in (("a.bin", "is not a file that is read"), ("none", "no files"), ("a.jsonl", "are no rows")):
        with pytest.raises(RunError, match=reason) as caught:
            read([str(tmp_path / name)], lambda body: [body])
        assert "--input-format" not in str(caught.value)


def test_the_first_bad_rows_are_listed() -> None:
    lines = summary([BadRow("x", line, "why") for line in range(1, 15)], 20)
    assert lines[0].endswith("20 rows, could not be used, or answers of them: 14")
    assert len(lines) == 1 + SHOWN + 1
    assert lines[-1].strip() == "and 4 more"
    assert summary([], 20) == []
