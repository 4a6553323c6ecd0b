"""The server as a process: refusals to start, and its ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import PreTrainedTokenizerFast

from tests.live import WINNOW, LiveServer, is_running, question, scripted, wait_until
from tests.models.test_spelling import word_piece
from winnow.models import demo
from winnow.models.errors import SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.api.run import _require_scratch, configure, require_keys
from winnow.server.settings import Settings


def test_a_platforms_number_of_workers_is_not_read(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    assert configure(scripted(tokenizer), ApiKeys()).workers == 1


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


def test_a_tokenizer_of_another_kind_is_refused_before_engines_start(tmp_path: Path) -> None:
    """Log-probabilities would show tokens such as `##its`, whose bytes do not spell the answer."""
    for path in demo.weights("policy").iterdir():
        if "token" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    controls = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=word_piece(), **controls).save_pretrained(tmp_path)
    done = winnow("serve", "--port", "0", "--policy", str(tmp_path), "--chat-template", "llama2")
    assert done.returncode == 1
    assert "another kind than Llama 2's" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_port_in_use_is_reported_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = winnow("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@contextlib.contextmanager
def request_in_flight(server: LiveServer, candidates: int, max_tokens: int) -> Iterator[list[httpx.Response]]:
    """Send a request that decodes during the block; the list holds its answer once the block has ended."""
    answers: list[httpx.Response] = []
    body = {"logit_bias": {"2": -100}, "max_tokens": max_tokens, "best_of_n": {"candidates": candidates}}
    request = threading.Thread(target=lambda: answers.append(server.chat(**body)))
    before = candidates_in_flight(server)
    request.start()
    assert wait_until(lambda: candidates_in_flight(server) == before + candidates, 20)
    yield answers
    request.join(90)


def candidates_in_flight(server: LiveServer) -> int:
    with server.http as http:
        lines = http.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("winnow_candidates_in_flight ")).split()[1]))


def require_draining(server: LiveServer) -> None:
    """Check that the probes tell a load balancer, and that a new request is refused."""
    with server.http as http:
        assert wait_until(lambda: http.get("/ready").status_code == 503, 5)
        assert http.get("/health").json() == {"status": "draining"}
    late = server.chat()
    assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")


@pytest.mark.engine
def test_ctrl_c_lets_requests_in_flight_finish_and_a_second_one_does_not() -> None:
    """A terminal's Ctrl-C reaches the whole process group: engines that handled it would abort their candidates."""
    with LiveServer.start("--shutdown-seconds", "80") as server:
        engines = server.engine_pids
        assert len(engines) >= 3
        with request_in_flight(server, 16, 1900) as long:
            with request_in_flight(server, 8, 60) as short:
                os.killpg(server.process.pid, signal.SIGINT)
                require_draining(server)
                assert all(map(is_running, engines))
            assert short[0].status_code == 200
            assert {item["finish_reason"] for item in short[0].json()["best_of_n"]["scored"]} == {"length"}
            assert not long
            os.killpg(server.process.pid, signal.SIGINT)
            assert server.process.wait(15) == 0
        assert long[0].status_code == 503
        assert long[0].json()["error"]["code"] == "shutting_down"
        assert wait_until(lambda: not any(map(is_running, engines)), 10)


@pytest.mark.engine
@pytest.mark.parametrize("command", ["serve", "distill"])
def test_an_engine_that_cannot_start_is_one_line_with_its_cause(command: str, tmp_path: Path) -> None:
    """Its process printed two tracebacks first, and the line itself named no cause."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello"}\n')
    arguments = (
        ["--port", "0"] if command == "serve" else [str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "run")]
    )
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "100000"}
    done = subprocess.run(
        [WINNOW, command, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stdout == ""
    *log, line = done.stderr.splitlines()
    assert all("reward model: card" in told or "starting 3 engines" in told for told in log), log
    assert line.startswith("winnow: vLLM could not start the safety engine")
    assert "Error: Available memory" in line


@pytest.mark.engine
def test_a_small_server_starts_answers_and_ends_without_a_word(tmp_path: Path) -> None:
    """It asked for 1 GiB of KV cache an engine, and on its way out native modules reported leaks among the logs."""
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [WINNOW, "serve", "--port", "0", "--max-sequences", "4", "--context", "256", "--candidates", "4"],
            stderr=stderr,
        )
    try:
        assert wait_until(lambda: "ready: http" in log.read_text() or process.poll() is not None, 180), log.read_text()
        address = log.read_text().partition("ready: ")[2].split()[0]
        answer = httpx.post(f"{address}/chat/completions", json=question(), timeout=60, trust_env=False)
        assert answer.status_code == 200
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        resident = [int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in children]
        assert max(resident) * os.sysconf("SC_PAGESIZE") < 2**30, "weights and caches of some MiB, and the libraries"
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert all(line.startswith("{") for line in log.read_text().splitlines()), log.read_text()


SCRIPTED = (sys.executable, "-m", "tests.scripted_serve")


def test_sigterm_lets_the_request_in_flight_finish() -> None:
    with LiveServer.start("--shutdown-seconds", "80", "--no-canary", program=SCRIPTED) as server:
        with request_in_flight(server, 32, 200) as answers:
            server.process.send_signal(signal.SIGTERM)
            require_draining(server)
            assert not answers
        assert server.process.wait(10) == 0
        assert answers[0].status_code == 200


def test_idle_connections_do_not_hold_up_the_end() -> None:
    with LiveServer.start("--no-canary", "--idle-seconds", "3600", program=SCRIPTED) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack:
            silent, _half, kept = (stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(3))
            _half.sendall(b"GET /health HTTP/1.1\r\nHost: ")
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(65536).startswith(b"HTTP/1.1 200")
            assert server.stop() == 0
            assert silent.recv(1) == b""


def test_an_ipv6_address_is_written_as_in_urls() -> None:
    """Regression: the ready line said http://::1:8000."""
    assert Settings(host="[::1]").host == Settings(host="::1").host == "::1"
    with LiveServer.start("--no-canary", "--host", "[::1]", program=SCRIPTED) as server:
        assert server.url.startswith("http://[::1]:")
        with server.http as http:
            assert http.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0", "allow_anonymous": True}, True),
        ({"host": "::", "allow_anonymous": True}, True),
        ({"host": "0.0.0.0", "allow_anonymous": True, "trusted_hosts": "10.0.0.0/8"}, False),
    ],
)
def test_an_operator_without_keys_is_told_which_hosts_are_answered(
    settings: dict[str, Any], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    require_keys(Settings(**settings), ApiKeys())
    assert any("trusted_hosts" in record.getMessage() for record in caplog.records) == is_told


def test_a_front_of_its_own_address_needs_keys_though_the_host_is_loopback() -> None:
    settings = Settings(host="127.0.0.1")
    require_keys(settings, ApiKeys())
    with pytest.raises(SettingsError, match="the proxy can be reached from other machines and no API key is set"):
        require_keys(settings, ApiKeys(), "the proxy")
    require_keys(Settings(allow_anonymous=True), ApiKeys(), "the proxy")


def test_an_engine_that_dies_stops_the_server_with_status_1() -> None:
    """The real engines die in tests/test_the_end.py, and hang in tests/server/test_service.py."""
    with LiveServer.start("--no-canary", program=SCRIPTED) as server:
        with request_in_flight(server, 32, 1900) as answers:
            server.process.send_signal(signal.SIGUSR1)
            assert server.process.wait(10) == 1
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "engine_dead")


def test_a_low_limit_of_open_files_is_one_line() -> None:
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
def test_listening_beyond_this_machine_without_a_key_is_refused(host: str) -> None:
    done = winnow("serve", "--port", "0", "--host", host)
    assert done.returncode == 1
    assert "--allow-anonymous" in done.stderr
    assert len(done.stderr.splitlines()) == 1
