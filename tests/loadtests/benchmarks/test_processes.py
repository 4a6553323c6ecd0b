"""Child processes: healthy, never healthy, ended early, orphaned; and companions that speak lines of JSON."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys

import pytest

from winnow.loadtests.benchmarks.baselines.prompts import Renderer
from winnow.loadtests.benchmarks.baselines.servers import Child, Command, ServerFailed, free_port, started
from winnow.loadtests.benchmarks.baselines.subprocess_client import companion
from winnow.loadtests.types import Request

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


def test_a_server_that_ends_says_what_it_wrote() -> None:
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
        "import sys; from winnow.loadtests.benchmarks.baselines.servers import Command, started\n"
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


ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
lines = [json.loads(next(sys.stdin)) for _ in range(3)]
for line in reversed(lines):
    told = {"error": "no"} if line["candidates"] == 2 else {"text": f" {line['prompt']}", "tokens": 7, "score_tail": 0.5}
    print(json.dumps({"number": line["number"], **told}), flush=True)
"""


def request(number: int, candidates: int = 1) -> Request:
    return Request(number, ({"role": "user", "content": f"question {number}"},), candidates, max_tokens=4)


async def test_a_companion_answers_in_any_order_and_its_end_is_a_failure() -> None:
    with companion(python(ECHO), Renderer()) as system:
        replies = await asyncio.gather(
            system.send(request(0)), system.send(request(1, candidates=2)), system.send(request(2))
        )
        assert [reply.kind for reply in replies] == ["answered", "failed", "answered"]
        assert [reply.text for reply in replies if reply.text] == [f"<s>[INST] question {n} [/INST]" for n in (0, 2)]
        assert (replies[0].sampled_tokens, replies[0].score_tail, replies[1].error) == (7, 0.5, "no")
        assert (await system.send(request(3))).kind == "failed"
        assert (await system.send(request(4))).kind == "failed"


def test_a_companion_that_ends_at_once_is_an_error() -> None:
    with pytest.raises(ServerFailed, match=r"did not get ready; it wrote:\n(?s:.*)no library"), companion(
        python("raise SystemExit('no library')"), Renderer()
    ):  # fmt: skip
        pass
