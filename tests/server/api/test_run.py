"""The server as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import WINNOW, LiveServer, is_running, wait_until
from winnow.models import demo
from winnow.models.errors import SettingsError
from winnow.server.api.run import _require_scratch

pytestmark = pytest.mark.engine


def winnow(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([WINNOW, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_checkpoint_that_cannot_be_served_is_one_line(command: str, tmp_path: Path) -> None:
    for flag, path in (
        ("--policy", tmp_path / "nowhere"),
        ("--policy", demo.weights("safety-rm")),
        ("--safety-rm", demo.weights("policy")),
        ("--helpfulness-rm", tmp_path),
    ):
        arguments = [command, flag, str(path)] + (["--port", "0"] if command == "serve" else [])
        done = winnow(*arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("winnow: ")


def test_a_port_in_use_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = winnow("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@contextlib.contextmanager
def slow_request(server: LiveServer) -> Iterator[list[httpx.Response]]:
    """A request that decodes long enough to be met in flight; the list holds its answer once the block is left."""
    answers: list[httpx.Response] = []
    slow = {"logit_bias": {"2": -100}, "max_tokens": 250, "best_of_n": {"candidates": 32}}
    request = threading.Thread(target=lambda: answers.append(server.chat(**slow)))
    request.start()
    with server.http as http:
        assert wait_until(lambda: "winnow_candidates_in_flight 32.0" in http.get("/metrics").text, 20)
    yield answers
    request.join(90)


def test_sigterm_lets_the_request_in_flight_finish_and_leaves_no_process() -> None:
    """Meanwhile the probes tell a load balancer what goes on, and nothing new is taken."""
    with LiveServer.start("--shutdown-seconds", "80") as server, server.http as http:
        engines = server.engine_pids
        assert len(engines) >= 3
        with slow_request(server) as answers:
            server.process.send_signal(signal.SIGTERM)
            assert wait_until(lambda: http.get("/ready").status_code == 503, 5)
            assert http.get("/health").json() == {"status": "draining"}
            late = server.chat()
            assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        assert server.process.wait(60) == 0
        assert answers[0].status_code == 200
        assert {item["finish_reason"] for item in answers[0].json()["best_of_n"]["scored"]} == {"length"}
        assert wait_until(lambda: not any(map(is_running, engines)), 10)


def test_ctrl_c_waits_for_the_request_in_flight_and_a_second_one_does_not() -> None:
    """A terminal's Ctrl-C reaches the whole process group: engines that heard it would abort what they decode."""
    with LiveServer.start("--shutdown-seconds", "80") as server, server.http as http:
        engines = server.engine_pids
        with slow_request(server) as answers:
            os.killpg(server.process.pid, signal.SIGINT)
            assert wait_until(lambda: http.get("/ready").status_code == 503, 5)
            assert all(map(is_running, engines))
            assert not answers
            os.killpg(server.process.pid, signal.SIGINT)
            assert server.process.wait(15) == 0
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "shutting_down"
        assert wait_until(lambda: not any(map(is_running, engines)), 10)


@pytest.mark.parametrize(("victim", "sig"), [(0, signal.SIGKILL), (-1, signal.SIGSTOP)])
def test_an_engine_that_dies_or_hangs_fails_closed_and_stops_the_server(victim: int, sig: signal.Signals) -> None:
    """The policy's process is killed; the last reward model's is stopped: it answers nothing, and lives."""
    with LiveServer.start("--stall-seconds", "2", "--candidates", "4") as server:
        engines = server.engine_pids
        if sig == signal.SIGSTOP:
            os.kill(engines[victim], sig)
            answer = server.chat()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
        else:
            with slow_request(server) as answers:
                os.kill(engines[victim], sig)
                assert server.process.wait(10) == 1
            assert answers[0].status_code == 503
        assert server.process.wait(15) == 1
        assert wait_until(lambda: not any(map(is_running, engines)), 10)


def test_a_limit_of_open_files_is_raised_or_told() -> None:
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 64; exec {WINNOW} serve --port 0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "ulimit -n" in done.stderr


def test_without_a_folder_for_temporary_files_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(SettingsError, match="TMPDIR"):
        _require_scratch()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_nobody_listens_beyond_this_machine_without_a_key_by_accident(host: str) -> None:
    done = winnow("serve", "--port", "0", "--host", host)
    assert done.returncode == 1
    assert "--allow-anonymous" in done.stderr
    assert len(done.stderr.splitlines()) == 1
