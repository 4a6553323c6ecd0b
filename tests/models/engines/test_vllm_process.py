"""An engine's process and its ties to the server's, forked and spawned. vLLM itself is a stand-in here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import is_running, wait_until
from winnow.models.engines.process import CPU_NICENESS, SCORING_NICENESS

OWNER = Path(__file__).with_name("owner.py")
STAND_IN = """
import os, time

class EngineCoreProc:
    @staticmethod
    def run_engine_core(word):
        print("runs", os.getpid(), os.getpgid(0), os.nice(0), word, flush=True)
        time.sleep(600)
"""
METHODS = ("fork", "spawn")
Owner = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """Start a process that owns an engine; it and the engine end with the test."""
    core = tmp_path / "vllm" / "v1" / "engine" / "core.py"
    core.parent.mkdir(parents=True)
    core.write_text(STAND_IN)
    for folder in core.parents[:3]:
        (folder / "__init__.py").touch()
    started = []

    def start(method: str, **facts: Any) -> subprocess.Popen[str]:
        given = {"on_gpu": False, "scores": False, "bad_fork": False, "orphaned": False, **facts}
        started.append(
            subprocess.Popen(
                [sys.executable, str(OWNER), method, json.dumps(given)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.engine
def test_a_killed_server_leaves_no_spawned_engine_of_vllms() -> None:
    program = [sys.executable, str(OWNER.with_name("spawning.py"))]
    environment = {**os.environ, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            pid, method, dtype = told(process, "runs")
            assert (method, dtype) == ("spawn", "float32")
            assert os.getpriority(os.PRIO_PROCESS, int(pid)) == min(19, os.nice(0) + SCORING_NICENESS)
            assert is_running(int(pid))
        finally:
            process.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not is_running(int(pid)), 10)


def told(process: subprocess.Popen[str], word: str) -> list[str]:
    """Return the rest of the next line that begins with `word`."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"{word} "):
            return line.split()[1:]
    assert process.stderr
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("facts", "added"),
    [({"on_gpu": False}, CPU_NICENESS), ({"on_gpu": False, "scores": True}, SCORING_NICENESS), ({"on_gpu": True}, 0)],
)
def test_an_engine_is_in_a_group_of_its_own_and_nice_only_on_cpu(
    owner: Owner, method: str, facts: dict[str, bool], added: int
) -> None:
    """A lower priority would slow the thread that feeds a card."""
    process = owner(method, **facts)
    pid, group, niceness, word = told(process, "runs")
    assert pid == group
    assert int(niceness) == min(19, os.nice(0) + added)
    assert word == "hello"


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_server_leaves_no_engine(owner: Owner, method: str) -> None:
    """A spawned engine ran none of the server's hooks, lived on, and kept a card's memory."""
    process = owner(method)
    engine = int(told(process, "runs")[0])
    process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not is_running(engine), 10)


def test_an_engine_that_is_born_as_its_server_dies_ends_before_it_begins(owner: Owner) -> None:
    process = owner("spawn", orphaned=True)
    engine = int(told(process, "born")[0])
    process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not is_running(engine), 10)
    assert process.stdout
    assert "runs" not in process.stdout.read()


def test_a_fork_after_a_use_of_cuda_is_told(owner: Owner) -> None:
    process = owner("fork", bad_fork=True)
    assert told(process, "ended") == ["1"]
    assert "CUDA was used before the engine's process was forked" in process.communicate()[1]


def test_the_server_itself_goes_on_as_it_was(owner: Owner) -> None:
    process = owner("fork")
    engine = int(told(process, "runs")[0])
    assert os.getpgid(process.pid) != os.getpgid(engine)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.nice(0)
    os.kill(engine, signal.SIGTERM)
    assert told(process, "ended") == [str(-signal.SIGTERM)]
