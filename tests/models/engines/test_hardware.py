"""The card and the available memory, as CUDA and the kernel report them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from winnow.models.engines import hardware
from winnow.models.engines.memory import Memory
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


def telling(name: str, capability: list[int], mps: bool | None) -> str:
    """Return a query that prints what a card would."""
    told = {"name": name, "total": 150, "free": 149, "capability": capability, "mps": mps}
    return f"print('a warning'); print({json.dumps(json.dumps(told))})"


def answering(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(hardware, "_QUERY", code)


def test_the_card_is_asked_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, telling("NVIDIA H200", [9, 0], True))
    assert hardware.card() == hardware.Card("NVIDIA H200", 150, 149, (9, 0), True)
    assert hardware.card().memory == Memory("NVIDIA H200", 150, 149)


@pytest.mark.parametrize(
    ("capability", "has_it"), [((9, 0), True), ((8, 0), True), ((12, 1), True), ((7, 5), False), ((7, 0), False)]
)
def test_cards_from_ampere_on_have_bfloat16(capability: tuple[int, int], has_it: bool) -> None:
    assert hardware.Card("a card", 1, 1, capability, None).has_bfloat16 is has_it


@pytest.mark.parametrize("told", [True, False])
def test_cudas_word_on_mps_counts(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    monkeypatch.setattr("winnow.models.engines.mps.is_running", lambda: not told)
    answering(monkeypatch, telling("NVIDIA H200", [9, 0], told))
    assert hardware.card().mps is told


@pytest.mark.parametrize("running", [True, False, None])
def test_where_the_driver_does_not_know_the_daemon_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, running: bool | None
) -> None:
    monkeypatch.setattr("winnow.models.engines.mps.is_running", lambda: running)
    answering(monkeypatch, telling("Tesla T4", [7, 5], None))
    assert hardware.card().mps is running


def test_the_first_look_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.first_card.cache_clear()
    answering(monkeypatch, telling("NVIDIA H200", [9, 0], True))
    first = hardware.first_card()
    answering(monkeypatch, telling("another", [7, 5], None))
    assert hardware.first_card() is first
    hardware.first_card.cache_clear()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('RuntimeError: No CUDA GPUs are available')", "No CUDA GPUs are available"),
        ("raise SystemExit(3)", "no reason given"),
        ("", "did not report"),
        ("print('nothing of use')", "did not report"),
        ("print('[1, 2]')", "did not report"),
        ("print('{}')", "did not report"),
        (telling("a card", [9], None), "did not report"),
        (telling("a card", [9, 0, 1], None), "did not report"),
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
