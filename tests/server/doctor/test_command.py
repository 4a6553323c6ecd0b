"""`winnow doctor`: its outputs, its exit status, trials that crash or hang, and one run on the real engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.live import WINNOW
from tests.server.doctor.machines import H100, facts, outcomes
from winnow.models.engines.hardware import ram
from winnow.models.engines.memory import GIB
from winnow.server.cli.main import app
from winnow.server.doctor import command
from winnow.server.doctor.runner import Outcome

NAMES = ["device", "policy", "reward_model", "service"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "100"})


def scripted(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[str]:
    """Let trials end as `outcomes` has it, on a machine with which nothing is wrong; returns the names as they run."""
    ran: list[str] = []

    def attempt(name: str, *_: object) -> Outcome:
        ran.append(name)
        return {**outcomes(), **changes}[name]

    monkeypatch.setattr(command, "attempt", attempt)
    monkeypatch.setattr(command, "gather", lambda _: facts())
    return ran


def test_the_report_lies_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = scripted(monkeypatch)
    done = run()
    assert done.exit_code == 0
    assert ran == NAMES
    assert done.stdout.startswith("No problem was found.")
    assert done.stderr.rstrip().endswith("winnow-doctor/doctor.html")
    document = json.loads((tmp_path / "winnow-doctor/doctor.json").read_text())
    assert document["status"] == "ok"
    assert [*document["trials"]] == NAMES
    assert "</html>" in (tmp_path / "winnow-doctor/doctor.html").read_text()
    steps = [line for line in done.stderr.splitlines() if line.startswith("trial ")]
    assert len(steps) == 4
    assert all(line.endswith(" s") for line in steps)


@pytest.mark.parametrize("name", ["x.json", "x.html"])
def test_the_report_has_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    scripted(monkeypatch)
    assert run("--out", str(tmp_path / name)).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.html", "x.json"]


def test_json_goes_to_standard_output_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch)
    monkeypatch.chdir(tmp_path)
    printed = json.loads(run("--json").stdout)
    assert printed["version"] == 1
    assert not [*tmp_path.iterdir()], "without --out nothing is written"
    printed = json.loads(run("--json", "--out", "x").stdout)
    assert json.loads((tmp_path / "x/doctor.json").read_text()) == printed


def test_a_problem_is_exit_status_1_and_the_next_trial_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = scripted(monkeypatch, policy=Outcome("policy", 2.0, error="its process ended with signal 6", log=("x",)))
    done = run("--out", str(tmp_path))
    assert done.exit_code == 1
    assert ran == NAMES
    assert "ended with signal 6" in done.stdout


def test_facts_alone_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = scripted(monkeypatch)
    assert run("--no-trials", "--out", str(tmp_path)).exit_code == 0
    assert ran == []
    assert json.loads((tmp_path / "doctor.json").read_text())["shape"] is None


def test_engines_that_do_not_fit_are_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = scripted(monkeypatch)
    done = run("--kv-cache-gib", "100000", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert ran == ["device"]
    assert "The models do not fit: the three engines need" in done.stdout
    assert "\n           policy: " in done.stdout, "the arithmetic has its lines"


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = scripted(monkeypatch)
    done = run("--policy", "./none", "--out", str(tmp_path))
    assert (done.exit_code, ran) == (1, ["device"])
    assert "none has no config.json" in done.stdout
    assert "--policy" in done.stdout


def test_without_an_engine_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = scripted(monkeypatch)
    monkeypatch.setattr(command, "gather", lambda _: facts(packages={"httpx": "1"}))
    done = run("--out", str(tmp_path))
    assert (done.exit_code, ran) == (1, [])
    assert "pip install" in done.stdout


def test_a_report_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = scripted(monkeypatch)
    (tmp_path / "file").touch()
    done = run("--out", str(tmp_path / "file" / "folder"))
    assert done.exit_code == 1
    assert done.stderr.startswith("winnow: the report cannot be written")
    assert ran == []


def test_what_was_found_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch)
    finish = command.attempt

    def attempt(name: str, *others: Any) -> Outcome:
        if name == "reward_model":
            raise KeyboardInterrupt
        return finish(name, *others)

    monkeypatch.setattr(command, "attempt", attempt)
    done = run("--out", str(tmp_path))
    assert done.exit_code == 130
    assert [*json.loads((tmp_path / "doctor.json").read_text())["trials"]] == ["device", "policy"]


@pytest.mark.parametrize(
    ("code", "error"),
    [("import os; os.abort()", "signal 6"), ("import time; time.sleep(1000)", "not done after 1 s")],
)
def test_trials_that_crash_or_hang_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str
) -> None:
    monkeypatch.setattr(command, "PROGRAM", (sys.executable, "-c", code))
    monkeypatch.setattr(command, "gather", lambda _: facts())
    done = run("--trial-seconds", "1", "--out", str(tmp_path))
    assert done.exit_code == 1
    trials = json.loads((tmp_path / "doctor.json").read_text())["trials"]
    assert [*trials] == NAMES
    assert all(error in trial["error"] for trial in trials.values())


def test_on_a_card_its_free_memory_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[Any]] = []

    def attempt(name: str, *others: Any) -> Outcome:
        seen.append(others)
        return outcomes(margin=200)[name]

    monkeypatch.setattr(command, "attempt", attempt)
    monkeypatch.setattr(command, "gather", lambda _: facts(H100))
    assert run("--shape", "tiny", "--out", str(tmp_path)).exit_code == 0
    for *_, free in seen:
        reads: Callable[[], int | None] = free
        assert reads() is None, "there is no card here, and no probe any more"
    assert "card_free" in (tmp_path / "doctor.json").read_text()


def test_help_teaches() -> None:
    text = " ".join(run("--help").stdout.replace("│", " ").split())
    for part in ("--shape", "--no-trials", "--policy", "--kv-cache-gib", "--compile", "Exit status: 0", "bug reports"):
        assert part in text
    assert "--port" not in text


@pytest.mark.engine
@pytest.mark.skipif(ram().free < 4 * GIB, reason="three engines need 3 GiB, and memory is measured")
def test_on_the_real_engines(tmp_path: Path) -> None:
    done = subprocess.run(
        [WINNOW, "doctor", "--out", str(tmp_path), "--context", "256", "--max-sequences", "4"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    document = json.loads((tmp_path / "doctor.json").read_text())
    assert "Traceback" not in done.stdout + done.stderr
    assert {name: trial["error"] for name, trial in document["trials"].items()} == dict.fromkeys(NAMES)
    assert done.returncode == int(document["status"] == "problem")
    figures = document["figures"]
    assert [step["candidates"] for step in figures["decode_steps"]] == [1, 4]
    assert all(timed["ratio"] > 1 for timed in (*figures["decode_steps"], *figures["selections"], figures["score"]))
    assert figures["scored"] == figures["candidates"] > 0
    assert [part["name"] for part in figures["memory"]] == ["safety", "helpfulness", "policy", "all"]
    assert all(0 < part["measured"] < 2 * part["planned"] for part in figures["memory"])
    assert "</html>" in (tmp_path / "doctor.html").read_text()
