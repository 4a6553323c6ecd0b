"""The last tests, by the file's name: they end the shared server and the shared engines, which saves further starts."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest

from tests.live import LiveServer, is_running, own_engines, question, serving, wait_until
from winnow.server.aio import cancel
from winnow.server.pipeline.lifecycle import Lifecycle
from winnow.server.service import Service


@pytest.mark.engine
def test_the_engines_are_idle_and_end_with_a_killed_server(server: LiveServer) -> None:
    with server.http as http:
        lines = http.get("/metrics").text.splitlines()
    unfinished = [line for line in lines if line.startswith("winnow_engine_requests{")]
    assert len(unfinished) == 3
    assert all(line.endswith(" 0.0") for line in unfinished)
    engines = server.engine_pids
    assert len(engines) >= 3
    server.stop(signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_running, engines)), 10)


@pytest.mark.engine
async def test_an_engine_that_dies_fails_the_request_in_flight_and_ends_the_lifecycle(service: Service) -> None:
    mortal = replace(service, lifecycle=Lifecycle())
    *_, policy = own_engines()
    body = question(logit_bias={"2": -100}, max_tokens=1900, best_of=32)
    async with serving(mortal) as http:
        watch = asyncio.create_task(mortal.watch())
        request = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        try:
            async with asyncio.timeout(20):
                while mortal.policy.unfinished < 32:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                os.kill(policy, signal.SIGKILL)
                await mortal.lifecycle.over()
                answer = await request
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
            assert mortal.lifecycle.is_dead
            assert (await http.get("/health")).status_code == 503
            assert (await http.post("/v1/chat/completions", json=question())).status_code == 503
        finally:
            cancel(watch)
            cancel(request)
