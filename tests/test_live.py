"""The tests' own helper that tells a shortage of memory from a fault of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import blaming_memory


def write_proc(folder: Path, gib: float, kills: int) -> None:
    kib = int(gib * 2**20)
    (folder / "meminfo").write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable: {kib} kB\n")
    (folder / "vmstat").write_text(f"nr_free_pages 1\noom_kill {kills}\n")


@pytest.mark.parametrize(
    ("gib", "kills", "first_line"),
    [
        (8.0, 0, "the server did not get ready"),
        (2.25, 0, "memory, not the code: 2.2 GiB were available, and three engines need about 3"),
        (8.0, 1, "memory, not the code: the kernel's OOM killer ended a process meanwhile"),
        (3.25, 2, "memory, not the code: the kernel's OOM killer ended a process meanwhile"),
    ],
)
def test_the_first_line_says_whether_memory_was_the_cause(
    tmp_path: Path, gib: float, kills: int, first_line: str
) -> None:

    def fail() -> None:
        write_proc(tmp_path, gib, 7 + kills)
        raise AssertionError("the server did not get ready\nand said more")

    write_proc(tmp_path, gib, 7)
    with pytest.raises(AssertionError) as failed, blaming_memory(tmp_path, tmp_path):
        fail()
    assert str(failed.value).splitlines()[0] == first_line
    assert "the server did not get ready\nand said more" in str(failed.value)


def test_a_start_that_succeeds_says_nothing(tmp_path: Path) -> None:
    write_proc(tmp_path, 0.5, 0)
    with blaming_memory(tmp_path, tmp_path):
        write_proc(tmp_path, 0.5, 9)
