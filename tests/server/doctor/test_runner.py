"""Trials that end well, fail, crash, hang or are killed: each is an outcome, and nothing outlives it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.live import is_running, wait_until
from winnow.models.errors import CheckpointError
from winnow.server.doctor.memory_watch import below, memory_of, title_of
from winnow.server.doctor.notes import Notes
from winnow.server.doctor.runner import LOG_LINES, Outcome, attempt
from winnow.server.doctor.trials import run
from winnow.server.settings import Settings

WRITE = """
import json, os, sys, time
result, parent = sys.argv[1:]
def note(**told):
    open(result, "w").write(json.dumps(told))
"""
LIMIT = 60.0


def of(code: str, folder: Path, limit: float = LIMIT) -> Outcome:
    return attempt("policy", [sys.executable, "-c", WRITE + code], folder, limit)


def test_a_trial_that_ends_well(tmp_path: Path) -> None:
    outcome = of("note(found={'x': 1, 'parent': int(parent)})", tmp_path)
    assert outcome.is_ok
    assert outcome.found == {"x": 1, "parent": os.getpid()}
    assert outcome.log == ()


def test_a_trial_that_fails_tells_why_and_keeps_what_it_found(tmp_path: Path) -> None:
    code = "print('at /srv/people/alice/x.py'); note(found={'x': 1}, error='no room in /srv/people/alice'); sys.exit(1)"
    outcome = of(code, tmp_path)
    assert outcome.error == "no room in …/alice"
    assert outcome.found == {"x": 1}
    assert outcome.log == ("at …/x.py",)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("os.abort()", "its process ended with signal 6"),
        ("sys.exit(3)", "its process ended with status 3"),
        ("open(result, 'w').write('{not json')", "it ended without a result"),
        ("pass", "it ended without a result"),
    ],
)
def test_a_trial_that_crashes(tmp_path: Path, code: str, error: str) -> None:
    outcome = of(code, tmp_path)
    assert outcome.error == error
    assert not outcome.is_late


def test_a_trial_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    started = tmp_path / "child"
    code = f"""
import subprocess
child = subprocess.Popen(["sleep", "1000"])
open({str(started)!r}, "w").write(str(child.pid))
note(found={{"x": 1}}, step="starting the policy's engine")
time.sleep(1000)
"""
    outcome = of(code, tmp_path, limit=3)
    assert outcome.is_late
    assert outcome.error == "not done after 3 s, while starting the policy's engine"
    assert outcome.found == {"x": 1}
    child = int(started.read_text())
    assert wait_until(lambda: not is_running(child), 10)


def test_the_log_is_its_end(tmp_path: Path) -> None:
    outcome = of("[print(number) for number in range(1000)]; sys.exit(1)", tmp_path)
    assert outcome.log == tuple(map(str, range(1000 - LOG_LINES, 1000)))


def test_what_a_trial_takes_is_seen(tmp_path: Path) -> None:
    code = "block = bytearray(200 * 2**20); block[::4096] = b'x' * len(block[::4096]); time.sleep(2); note(found={})"
    taken = of(code, tmp_path).taken
    assert taken
    assert 200 * 2**20 < taken.total < 400 * 2**20
    assert taken.least_free
    assert taken.engines == ()


def test_a_process_and_those_below_it() -> None:
    assert memory_of(os.getpid()) > 2**20
    assert "python" in title_of(os.getpid())
    assert os.getpid() in below(os.getppid())
    assert (memory_of(2**30), title_of(2**30), below(2**30)) == (0, "", [])


def test_an_error_of_a_trial_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(_: Settings, notes: Notes) -> None:
        notes.found["x"] = 1
        raise ValueError("two\n  lines")

    def refused(_: Settings, notes: Notes) -> None:
        raise CheckpointError("no room")

    notes = Notes(tmp_path / "x.json")
    assert run(wrong, Settings(), notes) == 1
    assert notes.error == "ValueError: two lines"
    assert "Traceback" in capsys.readouterr().err, "for the log"
    assert run(refused, Settings(), notes) == 1
    assert notes.error == "no room"
    notes = Notes(tmp_path / "y.json")
    assert run(lambda _, notes: notes.at("measuring"), Settings(), notes) == 0
