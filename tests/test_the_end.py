"""What comes last, by the file's name: the end of the server that all the others have asked, which saves the start of another."""

from __future__ import annotations

import signal

import pytest

from tests.live import LiveServer, is_running, wait_until


@pytest.mark.engine
def test_nothing_is_left_in_the_engines_and_a_killed_server_takes_them_along(server: LiveServer) -> None:
    with server.http as http:
        lines = http.get("/metrics").text.splitlines()
    unfinished = [line for line in lines if line.startswith("winnow_engine_requests{")]
    assert len(unfinished) == 3
    assert all(line.endswith(" 0.0") for line in unfinished)
    engines = server.engine_pids
    assert len(engines) >= 3
    server.stop(signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_running, engines)), 10)
