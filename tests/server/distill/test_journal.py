"""The journal: an appended entry survives, whatever happens afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs import make_run, problem, record
from winnow.models.errors import RunError
from winnow.server.distill import journal, records
from winnow.server.distill.files import whole
from winnow.server.distill.journal import NAME, Journal, read
from winnow.server.distill.records import Arm, DrawnWaves, Record


def stored(made: Record) -> Record:
    """Return `made` as the journal keeps it: times to 0.1 ms."""
    timings = made.selection.timings
    rounded = replace(timings, **{name: round(span, 4) for name, span in asdict(timings).items()})
    return replace(made, selection=replace(made.selection, timings=rounded))


def test_entries_come_back_in_the_order_of_the_input(tmp_path: Path) -> None:
    made = make_run(tmp_path, prompts=30, problems=3)
    entries = list(read(tmp_path))
    assert [entry.line for entry in entries] == list(range(1, 34))
    assert entries[:30] == [stored(item) for item in made]
    with Journal(tmp_path) as again:
        assert again.done == set(range(1, 34))
        assert not again.damaged


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30)
def test_an_entry_survives_its_json(seed: int) -> None:
    made = record(seed + 1, Random(seed))
    assert records.load(records.dump(made)) == stored(made)
    assert b"\n" not in records.dump(made)


def test_waves_survive_their_json() -> None:
    made = record(1, Random(0), (Arm(8, 1.0, waves=DrawnWaves(16, 4, 2, 3, "reward")), Arm(2, 0.5)))
    made = replace(made, selection=replace(made.selection, waves=3, stopped_by="reward"))
    assert records.load(records.dump(made)) == stored(made)


def test_a_loss_that_the_system_tells_once_is_told_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([OSError(errno.ENOSPC, "No space left on device")])

    def fdatasync(file: int) -> None:
        if error := next(results, None):
            raise error

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    opened = Journal(tmp_path)
    opened.append(record(1, Random(1)))
    for flush in (opened.sync, opened.sync, opened.close):
        with pytest.raises(RunError, match="No space left"):
            flush()


def test_the_newest_entry_of_a_line_is_read_again(tmp_path: Path) -> None:
    """Also of a journal that was cut off, and beside entries that are appended meanwhile."""
    made = make_run(tmp_path, prompts=9, problems=2)
    newer = record(4, Random(7))
    with (tmp_path / NAME).open("ab") as file:
        file.write(b"not an entry\n")
    with Journal(tmp_path) as opened:
        assert opened.damaged == 1
        opened.append(newer)
        assert opened.entry(4) == stored(newer)
        opened.append(record(12, Random(8)))
        assert opened.entry(3) == stored(made[2])
        assert [entry.line for entry in opened.entries()] == list(range(1, 13))
        assert list(opened.entries()) == list(read(tmp_path))


@given(
    keep=st.floats(0, 1), tail=st.sampled_from([b"", b"\0" * 64, b'{"line": 3', b"\xff\xfe", b"[]\n", b"\n\n", b"\0\n"])
)
@settings(max_examples=40)
def test_a_torn_end_is_cut_off_and_the_rest_is_kept(
    keep: float, tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, prompts=6, problems=0)
    content = (folder / NAME).read_bytes()
    torn = content[: int(keep * len(content))] + tail
    (folder / NAME).write_bytes(torn)
    whole_lines = set(content.splitlines(keepends=True))
    kept = b"".join(line for line in torn.splitlines(keepends=True) if line in whole_lines)
    with Journal(folder) as repaired:
        assert repaired.done == {records.load(line).line for line in kept.splitlines()}
        repaired.append(problem(99))
    assert (folder / NAME).read_bytes().startswith(kept)
    assert [entry.line for entry in read(folder)][-1] == 99
    assert all(records.load(line) for line in (folder / NAME).read_bytes().splitlines())


def test_an_empty_file_is_an_empty_journal(tmp_path: Path) -> None:
    (tmp_path / NAME).touch()
    with Journal(tmp_path) as journal_:
        assert journal_.done == set()
    assert list(read(tmp_path)) == []


def test_a_damaged_line_in_the_middle_is_only_answered_again(tmp_path: Path) -> None:
    make_run(tmp_path, prompts=5, problems=0)
    lines = (tmp_path / NAME).read_bytes().splitlines(keepends=True)
    lost = records.load(lines[2]).line
    lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
    (tmp_path / NAME).write_bytes(b"".join(lines))
    with Journal(tmp_path) as repaired:
        assert repaired.done == set(range(1, 6)) - {lost}
        assert repaired.damaged == 1
        repaired.append(record(lost, Random(1)))
    assert [entry.line for entry in read(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("line", [b"{}", b"[]", b"3", b'{"line":2,"id":null}', b'{"line":"2","answers":[]}'])
def test_a_line_of_json_that_is_no_entry_is_ignored_by_all(line: bytes, tmp_path: Path) -> None:
    make_run(tmp_path, prompts=3, problems=0)
    lines = (tmp_path / NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / NAME).write_bytes(b"".join([lines[0], line + b"\n", *lines[1:]]))
    with Journal(tmp_path) as repaired:
        assert (repaired.done, repaired.damaged) == ({1, 2, 3}, 1)
    assert [entry.line for entry in read(tmp_path)] == [1, 2, 3]


def test_the_newest_entry_of_a_line_counts(tmp_path: Path) -> None:
    with Journal(tmp_path) as first:
        first.append(problem(1, "failed"))
        first.append(problem(2, "input"))
    with Journal(tmp_path) as second:
        assert second.failed == {1}
        second.append(record(1, Random(0)))
    with Journal(tmp_path) as third:
        assert third.failed == set()
    assert [isinstance(entry, records.Record) for entry in read(tmp_path)] == [True, False]


def test_a_second_writer_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    hold = (
        "import os, sys, pathlib; from winnow.server.distill.journal import Journal; "
        "j = Journal(pathlib.Path(sys.argv[1])); print('mine', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    assert owner.stdin
    try:
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(RunError, match="another process is writing"):
            Journal(tmp_path)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
        owner.stdin.close()
    Journal(tmp_path).close()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path) as open_:
        open_.append(problem(1))
        before = (tmp_path / NAME).read_bytes()
        write = os.write

        def full(file: int, data: bytes) -> int:
            write(file, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(journal.os, "write", full)
        with pytest.raises(RunError, match="No space left on device; free some space"):
            open_.append(problem(2))
        monkeypatch.undo()
        assert (tmp_path / NAME).read_bytes() == before
        assert open_.done == {1}
        open_.append(problem(2))
    assert [entry.line for entry in read(tmp_path)] == [1, 2]


def test_a_short_write_is_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path) as open_:
        write = os.write
        monkeypatch.setattr(journal.os, "write", lambda file, data: write(file, data[:-3]))
        with pytest.raises(RunError, match="the disk is full"):
            open_.append(problem(1))
        monkeypatch.undo()
        assert (tmp_path / NAME).read_bytes() == b""


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written to"):
        Journal(tmp_path / "file")
    with pytest.raises(RunError, match="holds no run"):
        list(read(tmp_path / "nowhere"))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), whole(path) as file:
        file.write({}["half"])
    assert path.read_bytes() == b"old"
    with pytest.raises(RunError, match="No space left"), whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old"
    with whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_files_obey_the_umask(tmp_path: Path) -> None:
    """Prompts are private: under a strict umask no file is readable by others."""
    mask = os.umask(0o077)
    try:
        with whole(tmp_path / "a") as file:
            file.write(b"x")
        Journal(tmp_path).close()
    finally:
        os.umask(mask)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_the_leftover_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(b"half of something")
    with whole(tmp_path / "a") as file:
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
