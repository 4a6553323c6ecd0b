"""The speed of this machine, measured in a child process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from winnow.models.engines import bandwidth


def test_this_machine_has_a_speed() -> None:
    found = bandwidth.measure_in_child()
    assert found.measured
    assert found.name
    assert 1e8 < found.bandwidth < 1e14
    assert 1e8 < found.flops < 1e16


def test_a_child_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'Traceback' >&2\necho 'RuntimeError: out of memory' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="measured: RuntimeError: out of memory"):
        bandwidth.measure_in_child()
