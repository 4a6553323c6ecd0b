"""Inputs: the same prompts from every container, right line numbers, bounded memory, and named damage."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import datasets
import orjson
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from winnow.models.chat_templates import TEMPLATES
from winnow.models.errors import RunError
from winnow.server.distill.containers import SUFFIXES
from winnow.server.distill.lines import MAX_ROW_BYTES
from winnow.server.distill.parser import Task, parse
from winnow.server.distill.reader import Source, open_source, require_apart
from winnow.server.distill.records import Problem

Lines = list[dict[str, Any]]
BOM = b"\xef\xbb\xbf"
datasets.disable_progress_bars()


class Stdin(io.TextIOWrapper):
    """Standard input with given bytes."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def read(source: Source) -> Iterator[Task | Problem]:
    return parse(source, TEMPLATES["llama2"])


def opened(path: Path | str) -> Source:
    return open_source(str(path), Path("/nowhere"))


def jsonl(lines: Iterable[object]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def table(lines: Lines) -> pyarrow.Table:
    keys = dict.fromkeys(key for line in lines for key in line)
    return pyarrow.table({key: [line.get(key) for line in lines] for key in keys})


def bare(found: Iterable[Task | Problem]) -> list[Task | Problem]:
    """Return the items without the fields that depend on the container."""
    return [replace(item, file="", file_line=0) for item in found]


def as_file(name: str, content: Callable[[Lines], bytes]) -> Callable[[Path, Lines], Source]:
    def write(folder: Path, lines: Lines) -> Source:
        (folder / name).write_bytes(content(lines))
        return opened(folder / name)

    return write


def as_parquet(folder: Path, lines: Lines) -> Source:
    parquet.write_table(table(lines), folder / "p.parquet", row_group_size=3)
    return opened(folder / "p.parquet")


def as_dataset(folder: Path, lines: Lines) -> Source:
    datasets.Dataset(table(lines)).save_to_disk(folder / "d", num_shards=2)
    return opened(folder / "d")


def as_splits(folder: Path, lines: Lines) -> Source:
    one = datasets.Dataset(table(lines))
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(folder / "s")
    return opened(f"{folder / 's'}#train")


def as_folder(folder: Path, lines: Lines) -> Source:
    place, half = folder / "mixed", len(lines) // 2
    place.mkdir()
    (place / "a.jsonl").write_bytes(jsonl(lines[:half]).removesuffix(b"\n"))
    (place / "b.json.gz").write_bytes(gzip.compress(jsonl(lines[half : half + 1])))
    (place / "c.ndjson").write_bytes(b"")
    parquet.write_table(table(lines[half + 1 :]), place / "d.PARQUET")
    (place / ".hidden").write_bytes(b"not read")
    return opened(place)


def as_stdin(folder: Path, lines: Lines) -> Source:
    before, sys.stdin = sys.stdin, Stdin(jsonl(lines))
    try:
        return open_source("-", folder / "spool")
    finally:
        sys.stdin = before


def gzipped(lines: Lines) -> bytes:
    """Two members, as `cat a.gz b.gz` gives."""
    return gzip.compress(jsonl(lines[:1])) + gzip.compress(jsonl(lines[1:]))


CONTAINERS: dict[str, Callable[[Path, Lines], Source]] = {
    "jsonl": as_file("p.jsonl", jsonl),
    "json, no last line end": as_file("p.JSON", lambda lines: jsonl(lines)[:-1]),
    "ndjson, BOM and CRLF": as_file("p.ndjson", lambda lines: BOM + jsonl(lines).replace(b"\n", b"\r\n")),
    "gzip": as_file("p.jsonl.gz", gzipped),
    "array on one line": as_file("p.json", orjson.dumps),
    "array, pretty, BOM": as_file("q.json", lambda lines: BOM + orjson.dumps(lines, option=orjson.OPT_INDENT_2)),
    "array, gzip, as lines by name": as_file("q.jsonl.gz", lambda lines: gzip.compress(orjson.dumps(lines))),
    "objects, pretty": as_file(
        "r.json", lambda lines: b"\n".join(orjson.dumps(line, option=orjson.OPT_INDENT_2) for line in lines)
    ),
    "parquet": as_parquet,
    "dataset": as_dataset,
    "splits": as_splits,
    "folder": as_folder,
    "stdin": as_stdin,
}
CONTAINERS["csv"] = as_file("p.csv", lambda lines: b"prompt\n" + b"\n".join(line["prompt"].encode() for line in lines))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
turns = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}), max_size=4)
plain = st.fixed_dictionaries(
    {},
    optional={
        "prompt": texts,
        "messages": turns,
        "id": st.text("ab", max_size=2),
        "is_safety": st.booleans(),
        "system": texts,
        "category": texts,
        "source": st.integers(-9, 9),
    },
)
prompts = st.lists(plain, min_size=1, max_size=9).map(lambda lines: [{"prompt": "first"}, *lines, {"prompt": "last"}])


@settings(max_examples=8)
@given(prompts)
def test_every_container_holds_the_same(tmp_path_factory: pytest.TempPathFactory, lines: Lines) -> None:
    """Only the listed keys of a row without a shape may differ: a table fills absent columns with nulls."""
    folder = tmp_path_factory.mktemp("containers")
    wanted: list[Task | Problem] | None = None
    for name, write in CONTAINERS.items():
        if name == "csv" or (name in ("dataset", "splits") and len(lines) % 3):  # texts alone; slow to write
            continue
        source = write(folder, lines)
        found = [
            replace(item, message="") if isinstance(item, Problem) and item.code == "unknown_shape" else item
            for item in bare(read(source))
        ]
        wanted = wanted or found
        assert found == wanted, name
        assert [item.line for item in found] == list(range(1, len(lines) + 1))
        assert source.total == len(lines)
        assert bare(read(source)) == bare(read(source))


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "csv"])
def test_every_container_is_opened_the_same_again(tmp_path: Path, name: str) -> None:
    lines: Lines = [{"prompt": f"prompt {place}", "id": str(place)} for place in range(200)]
    source = CONTAINERS[name](tmp_path, lines)
    assert [item.id for item in read(source)] == [str(place) for place in range(200)]
    assert "/" not in source.name
    assert len(source.sha256) == 64
    assert source.size > 0
    files = [(item.file, item.file_line) for item in read(source)]
    assert len(set(files)) == (1 if name.startswith("array on one") or "by name" in name else 200)
    assert all("/" not in file for file, _ in files)
    if name not in ("splits", "stdin"):
        (path,) = (path for path in tmp_path.iterdir() if path.name == source.name)
        assert opened(path) == source


def test_hashes(tmp_path: Path) -> None:
    """A file's hash is what `sha256sum` says; a folder's changes with a name, and with where a file ends."""
    content = jsonl([{"prompt": "a"}])
    hashes = set()
    for names in ([("a.jsonl", b""), ("b.jsonl", content)], [("a.jsonl", content), ("b.jsonl", b"")]):
        for extra in ("", "x"):
            folder = tmp_path / f"{len(hashes)}"
            folder.mkdir()
            for name, text in names:
                (folder / f"{extra}{name}").write_bytes(text)
            hashes.add(opened(folder).sha256)
    assert len(hashes) == 4
    (tmp_path / "a.jsonl").write_bytes(content)
    assert opened(tmp_path / "a.jsonl").sha256 == hashlib.sha256(content).hexdigest()
    assert opened(tmp_path / "a.jsonl").size == len(content)


def test_every_kind_of_bad_line_in_one_file(tmp_path: Path) -> None:
    """Each bad line is one problem with its number, and all good lines are found."""
    good, long = b'{"prompt": "good"}', b'{"prompt": "' + b"x" * MAX_ROW_BYTES + b'"}'
    full = b'{"prompt": "' + b"x" * (MAX_ROW_BYTES - 14) + b'"}'
    assert len(full) == MAX_ROW_BYTES
    lines: list[tuple[bytes, str]] = [
        (BOM + b'{"prompt": "a", "id": "1"}', "good"),
        (b'{"prompt": "b", "id": "1"}', "duplicate_id"),
        (b"{not json", "invalid_json"),
        (b'{"prompt": 1}', "invalid_type"),
        (b"", ""),
        (b" \t\r", ""),
        (good + b"\r", "good"),
        (BOM + good, "invalid_json"),
        ('{"prompt": "a\u2028b\u2029c\x85d"}'.encode(), "good"),
        (long, "line_too_long"),
        (full, "good"),
        (full + b"\r", "good"),
        (full + b" ", "line_too_long"),
        (b'{"prompt": "\xff\xfe"}', "invalid_utf8"),
        (b"\0\0\0", "invalid_json"),
        (b'{"prompt": "\\udc00"}', "invalid_json"),
        (b'{"prompt": "a", "x": NaN}', "invalid_json"),
        (b"[" * 50_000, "invalid_json"),
        (good, "good"),
        (good, "good"),
        (long[: MAX_ROW_BYTES + 5], "line_too_long"),
        (long[: MAX_ROW_BYTES + 6], "line_too_long"),
        (b'["prompt"]', "not_an_object"),
        (good[:-1], "invalid_json"),
    ]
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in lines))
    source = opened(path)
    found = {item.line: item.code if isinstance(item, Problem) else "good" for item in read(source)}
    assert found == {number: code for number, (_, code) in enumerate(lines, start=1) if code}
    assert source.total == len(lines)
    assert all(item.line == item.file_line for item in read(source))


def test_long_lines_cost_no_memory(tmp_path: Path) -> None:
    for name, opener in (("p.jsonl", open), ("p.jsonl.gz", gzip.open)):
        with opener(tmp_path / name, "wb") as file:  # type: ignore[operator]
            for _ in range(6):
                file.write(b"x" * MAX_ROW_BYTES)
            file.write(b'\n{"prompt": "after"}\n')
        tracemalloc.start()
        found = list(read(opened(tmp_path / name)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [getattr(item, "code", "good") for item in found] == ["line_too_long", "good"]
        assert peak < 3.5 * MAX_ROW_BYTES


@pytest.mark.parametrize("name", ["jsonl", "gzip", "parquet", "array on one line", "array, pretty, BOM", "csv"])
def test_memory_is_flat(tmp_path: Path, name: str) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        source = CONTAINERS[name](folder, [{"prompt": f"prompt {place} " * 5} for place in range(count)])
        tracemalloc.start()
        assert sum(1 for _ in read(source)) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    few = 3_000 if name.startswith("array") else 500  # more than is read at once
    assert peak(6 * few) < peak(few) + 100_000


@pytest.mark.parametrize("content", [b"", BOM, b"\n\n \r\n"])
def test_an_empty_input_has_no_rows(tmp_path: Path, content: bytes) -> None:
    for name in ("p.jsonl", "p.jsonl.gz"):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        source = opened(tmp_path / name)
        assert list(read(source)) == []
        assert source.total == {b"": 0, BOM: 1}.get(content, 3)
    parquet.write_table(pyarrow.table({}), tmp_path / "p.parquet")
    assert list(read(opened(tmp_path / "p.parquet"))) == []


def test_a_format_that_is_named_is_read_whatever_the_name(tmp_path: Path) -> None:
    texts = ["one\u2028two", "\ufefflast", "{"]
    (tmp_path / "p.txt").write_text("\n".join(["", *texts]), encoding="utf-8")
    with pytest.raises(RunError, match="--input-format"):
        opened(tmp_path / "p.txt")
    source = open_source(str(tmp_path / "p.txt"), tmp_path, "text")
    found = [(item.file_line, item.messages[0].content) for item in read(source) if isinstance(item, Task)]
    assert (source.kind, found) == ("text", list(enumerate(texts, start=2)))
    for name, content, format in (
        ("p.data", b'[{"prompt": "a"}]', "json"),
        ("p.json", b"prompt\na\n", "csv"),
        ("p.csv.gz", gzip.compress(b"prompt\na\n"), None),
        ("p.tsv", b"prompt\tid\na\tb\n", None),
        ("p.csv", b'{"prompt": "a"}', "jsonl"),
    ):
        (tmp_path / name).write_bytes(content)
        (item,) = read(open_source(str(tmp_path / name), tmp_path, format))  # type: ignore[arg-type]
        assert isinstance(item, Task), name
    parquet.write_table(table([{"prompt": "a"}]), tmp_path / "table")
    assert open_source(str(tmp_path / "table"), tmp_path, "parquet").kind == "parquet"


@pytest.mark.parametrize(
    ("name", "format"), [("p.csv", None), ("p.jsonl", None), ("p.txt", "text"), ("p.tsv.gz", None)]
)
def test_utf16_is_named(name: str, format: Literal["text"] | None, tmp_path: Path) -> None:
    """As Excel writes "Unicode text": a text file of that kind gave its bytes as prompts."""
    content = "prompt\nb\n".encode("utf-16")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(RunError, match="is UTF-16 text; save it as UTF-8"):
        open_source(str(tmp_path / name), tmp_path / "spool", format)


def test_numbers_of_an_arrays_rows_are_those_of_its_elements(tmp_path: Path) -> None:
    """So that a pretty-printed file and its compact form are the same run, seed by seed."""
    (tmp_path / "p.json").write_bytes(b'[\n{"prompt":\n"a"},\n\n3,\n{"prompt": "c"}]')
    found = list(read(opened(tmp_path / "p.json")))
    assert [(item.line, item.file_line) for item in found] == [(1, 2), (2, 5), (3, 6)]
    assert [getattr(item, "code", "good") for item in found] == ["good", "not_an_object", "good"]
    (tmp_path / "p.json").write_bytes(b'[{"prompt": "a"}')
    with pytest.raises(RunError, match="not a whole array"):
        opened(tmp_path / "p.json")


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl({"prompt": hashlib.sha256(bytes(place)).hexdigest()} for place in range(3000)))
    path = tmp_path / "p.jsonl.gz"
    for content in (whole[:-9], whole[:200], whole[:300] + b"\x00" * 50 + whole[350:], b"plain", whole + b"tail"):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"p\.jsonl\.gz is damaged or not whole"):
            opened(path)
    path.write_bytes(whole)
    source = opened(path)
    path.write_bytes(whole[: len(whole) // 2])
    found = []
    with pytest.raises(RunError, match=r"p\.jsonl\.gz is damaged"):
        found.extend(read(source))
    assert [item.line for item in found] == list(range(1, len(found) + 1))
    path.unlink()
    with pytest.raises(RunError, match=r"p\.jsonl\.gz cannot be read: No such file"):
        list(read(source))


def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    lines: Lines = [{"prompt": f"{place} " * 50} for place in range(2000)]
    parquet.write_table(table(lines), path, row_group_size=500, write_page_checksum=True)
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:100], b"", b"PAR1", b'{"prompt": "a"}'):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"p\.parquet"):
            opened(path)
    place = len(whole) // 2
    path.write_bytes(whole[:place] + bytes(64) + whole[place + 64 :])
    found = []
    with pytest.raises(RunError, match=r"p\.parquet"):
        found.extend(read(opened(path)))
    assert 0 < len(found) < len(lines)


def test_a_table_text_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    binary = pyarrow.array([b"good", b"\xff", b"good"] * 50)
    parquet.write_table(pyarrow.table({"prompt": binary}), tmp_path / "b.parquet")
    assert {item.code for item in read(opened(tmp_path / "b.parquet"))} == {"invalid_type"}  # bytes are no text
    wrong = pyarrow.StringArray.from_buffers(150, *binary.buffers()[1:])
    parquet.write_table(pyarrow.table({"prompt": wrong}), tmp_path / "p.parquet")
    codes = [getattr(item, "code", "good") for item in read(opened(tmp_path / "p.parquet"))]
    assert codes == ["good", "invalid_utf8", "good"] * 50


def test_a_table_without_prompts_is_refused(tmp_path: Path) -> None:
    source = as_parquet(tmp_path, [{"text": "a", "label": 1}])
    with pytest.raises(RunError, match=r"no column prompt or messages.*its columns are: text, label"):
        list(read(source))


def test_splits_have_to_be_chosen(tmp_path: Path) -> None:
    one = datasets.Dataset(table([{"prompt": "a"}]))
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "two")
    datasets.DatasetDict({"train": one}).save_to_disk(tmp_path / "one")
    one.save_to_disk(tmp_path / "none")
    for path in ("two", "two#dev"):
        with pytest.raises(RunError, match="the splits train, test"):
            opened(tmp_path / path)
    for path in ("none#train", "one#test"):
        with pytest.raises(RunError, match="has the splits"):
            opened(tmp_path / path)
    assert opened(tmp_path / "one") == opened(f"{tmp_path / 'one'}#train")
    assert opened(tmp_path / "one").name == "one#train"
    shard = next((tmp_path / "none").glob("*.arrow"))
    (tmp_path / "none" / "cache-1.arrow").write_bytes(b"the library's own")
    assert opened(tmp_path / "none").sha256
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(RunError, match="none"):
        list(read(opened(tmp_path / "none")))
    (tmp_path / "none" / "state.json").write_bytes(b"{")
    with pytest.raises(RunError, match="damaged"):
        opened(tmp_path / "none")


def test_the_reason_why_an_input_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path | str, words: str) -> None:
        with pytest.raises(RunError, match=words):
            opened(path)

    refused(tmp_path / "missing.jsonl", "does not exist")
    refused(tmp_path / ("x" * 5000), "too long")
    (tmp_path / "p.txt").write_bytes(b"")
    refused(tmp_path / "p.txt", ", ".join(SUFFIXES).replace(".", r"\."))
    refused(tmp_path, r"p\.txt is not a file that is read")
    refused(f"{tmp_path}#train", "no splits")
    os.mkfifo(tmp_path / "pipe.jsonl")
    refused(tmp_path / "pipe.jsonl", "neither a file nor a folder")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".hidden.jsonl").write_bytes(b"")
    refused(folder, "holds no files")
    (folder / "a.jsonl").mkdir()
    refused(folder, r"a\.jsonl is not a file")
    (tmp_path / "secret.jsonl").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(tmp_path / "secret.jsonl", "permission denied")


def test_a_name_that_is_not_utf8_or_has_a_hash(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"\xff.jsonl"), "a#b.jsonl"):
        (tmp_path / name).write_bytes(jsonl([{"prompt": "a"}]))
        (found,) = read(opened(tmp_path / name))
        orjson.dumps(found.file)


def test_standard_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, content = tmp_path / "input.jsonl", jsonl([{"prompt": "a"}, {"prompt": "b"}])

    def given(stdin: object) -> Source:
        monkeypatch.setattr(sys, "stdin", stdin)
        return open_source("-", spool)

    for stdin in (None, Stdin(content, terminal=True)):
        with pytest.raises(RunError, match="nothing on standard input"):
            given(stdin)
    assert not spool.exists()
    source = given(Stdin(content))
    assert spool.read_bytes() == content
    assert (source.name, source.sha256, source.total) == ("-", hashlib.sha256(content).hexdigest(), 2)
    assert {item.file for item in read(source)} == {"-"}
    for stdin in (Stdin(content), Stdin(b"", terminal=True), Stdin(b""), None):  # a service's standard input is empty
        assert given(stdin) == source
    for other in (content + b"\n", content[:-1], content.replace(b"b", b"c")):
        with pytest.raises(RunError, match="not what this run began with"):
            given(Stdin(other))
    assert [path.name for path in tmp_path.iterdir()] == ["input.jsonl"]
    assert spool.read_bytes() == content


def test_input_and_output_are_apart(tmp_path: Path) -> None:
    prompts = tmp_path / "data" / "p.jsonl"
    prompts.parent.mkdir()
    prompts.write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for path, out in (
        (prompts, prompts),
        (prompts, tmp_path / "data"),
        (prompts, tmp_path / "link"),
        (prompts, tmp_path),
        (tmp_path / "data", tmp_path / "data"),
        (tmp_path / "data", tmp_path / "data" / "out" / "deep"),
        (tmp_path / "link", tmp_path / "data" / "out"),
        (Path(f"{tmp_path / 'data'}#train"), tmp_path / "data"),
    ):
        with pytest.raises(RunError, match="choose another --out"):
            require_apart(str(path), out)
    require_apart(str(prompts), tmp_path / "data" / "out")
    require_apart(str(tmp_path / "data"), tmp_path / "data-out")
    require_apart("-", tmp_path)
