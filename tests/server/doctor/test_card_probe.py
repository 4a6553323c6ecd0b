"""The card's free memory, read by a child process from the driver's library."""

from __future__ import annotations

import io
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest

from winnow.server.doctor import card_probe


class Driver:
    """A driver's library whose card has less free memory at each reading; `fails` names a function that fails."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.free = fails, 1000
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuMemGetInfo_v2":
                self.free -= 100
                arguments[0]._obj.value, arguments[1]._obj.value = self.free, 1000
            return 801 if name == self.fails else 0

        return call


def answered(monkeypatch: pytest.MonkeyPatch, driver: Driver, lines: int) -> str:
    out = io.StringIO()
    monkeypatch.setattr(card_probe.ctypes, "CDLL", lambda _: driver)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * lines))
    monkeypatch.setattr(sys, "stdout", out)
    card_probe.main()
    return out.getvalue()


def test_each_line_is_answered_within_one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    assert answered(monkeypatch, driver, 3) == "900\n800\n700\n"
    assert driver.calls.count("cuDevicePrimaryCtxRetain") == 1
    assert driver.calls[0] == "cuInit"


def test_a_card_that_cannot_be_used_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="CUDA returned 801"):
        answered(monkeypatch, Driver(fails="cuDevicePrimaryCtxRetain"), 1)


@pytest.mark.skipif(find_library("cuda") is not None, reason="there may be a card")
def test_without_a_card_nothing_is_read() -> None:
    with card_probe.free_memory() as read:
        assert read() is None
    assert read() is None, "also once the child has ended"


def test_a_card_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(card_probe, "ANSWER_SECONDS", 0.2)
    with card_probe.free_memory() as read:
        assert read() is None


def test_readings_come_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nfree=100\nwhile read -r _; do free=$((free - 10)); echo $free; done\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with card_probe.free_memory() as read:
        assert [read(), read(), read()] == [80, 70, 60], "the first reading makes the context"
    assert read() is None
