"""The server as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.live import WINNOW, LiveServer, is_running, wait_until
from winnow.models import demo

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
        lines = [line for line in done.stderr.splitlines() if "starting three engines" not in line]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("winnow: ")


def test_a_flipped_reward_model_is_caught_by_its_canary() -> None:
    done = winnow("serve", "--port", "0", "--safety-scale", "-1")
    assert done.returncode == 1
    assert "safety reward model: its canary failed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = winnow("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_sigterm_lets_the_request_in_flight_finish_and_leaves_no_process() -> None:
    with LiveServer.start() as server:
        engines = server.engine_pids
        assert len(engines) >= 3
        answers: list[httpx.Response] = []
        slow = {"logit_bias": {"2": -100}, "max_tokens": 120, "best_of_n": {"candidates": 8}}
        request = threading.Thread(target=lambda: answers.append(server.chat(**slow)))
        request.start()
        with server.http as http:
            assert wait_until(lambda: "in_flight 8.0" in http.get("/metrics").text, 20)
        assert server.stop(signal.SIGTERM) == 0
        request.join(60)
        assert answers[0].status_code == 200
        assert wait_until(lambda: not any(map(is_running, engines)), 10)


def test_a_killed_engine_fails_closed_and_stops_the_server() -> None:
    with LiveServer.start() as server:
        engines = server.engine_pids
        answers: list[httpx.Response] = []
        slow = {"logit_bias": {"2": -100}, "max_tokens": 1000, "best_of_n": {"candidates": 8}}
        request = threading.Thread(target=lambda: answers.append(server.chat(**slow)))
        request.start()
        with server.http as http:
            assert wait_until(lambda: "in_flight 8.0" in http.get("/metrics").text, 20)
        os.kill(engines[0], signal.SIGKILL)
        assert server.process.wait(15) == 1
        request.join(15)
        assert answers[0].status_code == 503
        assert wait_until(lambda: not any(map(is_running, engines)), 10)


def test_a_killed_server_takes_its_engines_along() -> None:
    with LiveServer.start() as server:
        engines = server.engine_pids
        server.stop(signal.SIGKILL)
        assert wait_until(lambda: not any(map(is_running, engines)), 10)
