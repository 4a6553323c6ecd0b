"""Child processes: healthy, never healthy, ended early, orphaned."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from winnow.loadtests.benchmarks.processes import Child, Command, ServerFailed, free_port, started

SERVE = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2])); self.end_headers()
    def log_message(self, *arguments): print("asked", file=sys.stderr, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""
SLEEP = "import sys, time; print('I sleep', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def python(code: str, *arguments: object) -> Command:
    return Command("a child", [sys.executable, "-c", code, *map(str, arguments)])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_healthy_server_is_waited_for_and_ended() -> None:
    port = free_port()
    with started(python(SERVE, port, 200)) as child:
        child.wait_until_healthy(f"http://127.0.0.1:{port}/health", seconds=30)
        assert not is_gone(child.process.pid)
    assert is_gone(child.process.pid)


def test_a_server_that_never_becomes_healthy_is_an_error_and_leaves_no_orphan() -> None:
    port = free_port()
    with started(python(SERVE, port, 503)) as child:
        with pytest.raises(ServerFailed, match=r"(?s)a child was not healthy within 1 s; it wrote:\n.*asked"):
            child.wait_until_healthy(f"http://127.0.0.1:{port}/health", seconds=1)
        assert not is_gone(child.process.pid)
    assert is_gone(child.process.pid)


def test_the_error_of_a_server_that_ends_has_its_log() -> None:
    complaint = "import sys; sys.exit('no such model')"
    with (
        started(python(complaint)) as child,
        pytest.raises(ServerFailed, match=r"ended with status 1 .*\nno such model"),
    ):
        child.wait_until_healthy(f"http://127.0.0.1:{free_port()}/health", seconds=30)


def test_a_child_that_ignores_the_request_is_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child.stop, "__defaults__", (0.2,))
    with started(python(STUBBORN), with_pipes=True) as child:
        assert child.process.stdout
        assert child.process.stdout.readline() == b"I sleep\n"
    assert child.process.returncode == -signal.SIGKILL


def test_children_end_with_a_benchmark_that_is_killed() -> None:
    """Even `kill -9` of the benchmark must leave no server behind that holds memory and cores."""
    code = (
        "import sys; from winnow.loadtests.benchmarks.processes import Command, started\n"
        f"with started(Command('child', [sys.executable, '-c', {SLEEP!r}]), with_pipes=True) as child:\n"
        "    child.process.stdout.readline(); print(child.process.pid, flush=True); child.process.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        watched = os.pidfd_open(pid)
        parent.kill()
    ended, _, _ = select.select([watched], [], [], 30)
    os.close(watched)
    assert ended
