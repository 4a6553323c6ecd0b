"""The available memory, as the kernel and CUDA report it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from winnow.models.engines import hardware
from winnow.models.errors import CheckpointError

MEMINFO = "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   6000 kB\nHugePages_Total:       0\n"


def machine(folder: Path, **limits: str) -> tuple[Path, Path]:
    (folder / "meminfo").write_text(MEMINFO)
    for name, text in limits.items():
        path = folder / hardware._LIMITS[name == "old"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder, folder


def test_the_machines_memory(tmp_path: Path) -> None:
    memory = hardware.ram(*machine(tmp_path))
    assert (memory.total, memory.free) == (8000 * 1024, 6000 * 1024)


@pytest.mark.parametrize("version", ["new", "old"])
def test_a_containers_limit(tmp_path: Path, version: str) -> None:
    memory = hardware.ram(*machine(tmp_path, **{version: f"{4000 * 1024}\n"}))
    assert memory.total == memory.free == 4000 * 1024
    unlimited = hardware.ram(*machine(tmp_path, new="max\n", old=f"{2**63 - 4096}\n"))
    assert unlimited.total == 8000 * 1024


def test_this_machine_has_some() -> None:
    memory = hardware.ram()
    assert 0 < memory.free <= memory.total


def answering(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(hardware, "_QUERY", code)


def test_the_card_is_asked_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "print('a warning'); print('[\"NVIDIA H200\", 150, 149]')")
    memory = hardware.card()
    assert (memory.name, memory.total, memory.free) == ("NVIDIA H200", 150, 149)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('RuntimeError: No CUDA GPUs are available')", "No CUDA GPUs are available"),
        ("raise SystemExit(3)", "no reason given"),
        ("", "did not report"),
        ("print('nothing of use')", "did not report"),
    ],
)
def test_without_a_card_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, code: str, reason: str) -> None:
    answering(monkeypatch, code)
    with pytest.raises(CheckpointError, match=reason) as caught:
        hardware.card()
    assert "\n" not in str(caught.value)


def test_a_card_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired(sys.executable, 1)

    monkeypatch.setattr("subprocess.run", late)
    with pytest.raises(CheckpointError, match="did not report"):
        hardware.card()
