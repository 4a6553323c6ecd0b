"""One server's circuit and its probes, whatever happens to them."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest

from tests.model_servers import until
from winnow.models.engines import endpoint
from winnow.models.engines.addresses import parse_address
from winnow.models.engines.endpoint import Endpoint, Transient
from winnow.models.engines.remote import Link

pytestmark = pytest.mark.asyncio(loop_scope="function")  # a server's connections end with its loop


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.02)
    monkeypatch.setattr(endpoint, "SILENT_SECONDS", 0.1)


class Probes:
    """Raises `problem` until it is None."""

    def __init__(self, problem: Exception | None) -> None:
        self.problem = problem
        self.count = 0

    async def __call__(self, server: Endpoint) -> None:
        self.count += 1
        if self.problem:
            raise self.problem


def server(probes: Probes) -> Endpoint:
    address = parse_address("http://127.0.0.1:9")
    made = Endpoint("policy", Link(address), address, probes)
    made.enter_loop()
    return made


async def test_a_request_that_ends_as_the_circuit_opens_does_not_end_the_probes() -> None:
    """Its limit cannot be set any more, and the error ended the task that closes the circuit."""
    probes = Probes(Transient("it fails"))
    one = server(probes)
    is_late, may_end = asyncio.Event(), asyncio.Event()

    async def request() -> None:
        async with one.place(), one.within(time.monotonic() + 0.01):
            try:
                await asyncio.Event().wait()
            finally:
                is_late.set()
                await may_end.wait()  # as a connection that is being closed

    running = asyncio.create_task(request())
    await is_late.wait()
    one.note(Transient("it fails"), has_others=True)
    one.note(Transient("it fails", is_internal=True), has_others=True)
    await until(lambda: probes.count >= 3)
    assert one.outage == "it fails"
    may_end.set()
    with pytest.raises(TimeoutError):
        await running
    probes.problem = None
    await until(lambda: one.outage is None)


async def test_an_unexpected_failure_of_a_probe_is_an_outage_that_ends(caplog: pytest.LogCaptureFixture) -> None:
    probes = Probes(TypeError("secret words"))
    one = server(probes)
    one.open("it fails")
    await until(lambda: probes.count >= 3)
    assert one.outage == "a probe of it fails (TypeError)"
    probes.problem = None
    await until(lambda: one.outage is None)
    assert "TypeError in __call__, line" in caplog.text
    assert "secret" not in caplog.text


async def test_an_unexpected_failure_of_the_background_task_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    one = server(Probes(None))

    async def fault() -> str | None:
        raise KeyError("secret words")

    with monkeypatch.context() as broken:
        broken.setattr(one, "_fault", fault)
        await until(lambda: "KeyError in fault" in caplog.text)
    one.open("it fails")
    await until(lambda: one.outage is None)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("turns", range(24))
async def test_a_loop_may_end_while_a_probe_connects(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """A connection that the loop's own end cancelled before its first step was reported as never awaited."""
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(endpoint, "LONGEST_PROBE", 0.0)

    async def probe(server: Endpoint) -> None:
        await server.once("GET", "/v1/models")

    async def life() -> None:
        address = parse_address("http://127.0.0.1:9")
        one = Endpoint("policy", Link(address), address, probe, outage="it is down")
        one.enter_loop()
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.leave_loop()
        assert one.unfinished == 0

    await asyncio.to_thread(asyncio.run, life())
    gc.collect()  # what was never awaited is told as it is freed, and fails this test
