"""`winnow serve --ray` on a cluster of three raylets: two replicas behind Ray's proxy, in the order of their life."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import question, wait_until
from tests.ray_cluster import RayCluster
from tests.scripted_ray import LONG, TICK

SECONDS = 120
ROOT = Path(__file__).parents[3]
REPLICAS = "ServeReplica:winnow"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def driver(cluster: RayCluster, port: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.scripted_ray", "serve", "--ray", cluster.address, "--replicas", "2"),
            *("--port", str(port), "--no-canary", "--max-candidates-in-flight", "64", "--max-queued-candidates", "0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**cluster.environment, TICK: "0.02"},
        cwd=ROOT,
    ) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "ready: " in line:
                break
        assert "replicas: 2" in said[-1], "".join(said)
        yield process
        process.kill()


@pytest.fixture
async def http(driver: subprocess.Popen[str], port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False) as client:
        yield client


async def chat(http: httpx.AsyncClient, content: str = "Hello", **fields: Any) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=question(content, **fields))


async def total(http: httpx.AsyncClient, name: str) -> float:
    page = (await http.get("/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}{{replica=.*}} (\S+)$", page, re.MULTILINE))


async def until(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110, another process has no event for it
            await asyncio.sleep(0.05)


async def test_replicas_answer_alike_with_one_request_id_and_one_page_of_metrics(http: httpx.AsyncClient) -> None:
    """Few candidates: a proxy's counts lag, and eight requests of 16 would have to fit to the last place."""
    answers = await asyncio.gather(*(chat(http, seed=3, best_of_n={"candidates": 4}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    named = await http.get("/v1/models", headers={"x-request-id": "mine"})
    assert named.headers.get_list("x-request-id") == ["mine"]
    assert len(answers[0].headers.get_list("x-request-id")) == 1
    page = (await http.get("/metrics")).text
    assert len(set(re.findall(r'winnow_ready{replica="(\w+)"} 1.0', page))) == 2
    served = re.findall(r'winnow_requests_total{replica="\w+",route="/v1/chat/completions",status="200"} (\S+)', page)
    assert len(served) == 2
    assert sum(map(float, served)) == 8
    assert page.count("# TYPE winnow_ready gauge") == 1
    assert (await chat(http, model="other")).status_code == 404


async def test_refusals_arrive_and_clients_that_leave_free_their_candidates(http: httpx.AsyncClient) -> None:
    """Requests of 16 candidates fill both replicas, which take 64 each and queue none."""
    tasks: list[asyncio.Task[httpx.Response]] = []
    while (admitted := await total(http, "winnow_candidates_admitted")) < 128:
        assert len(tasks) < 24, "the replicas do not fill"
        task = asyncio.create_task(chat(http, max_tokens=LONG, stream=len(tasks) % 2 == 1))
        tasks.append(task)

        async def is_placed(task: asyncio.Task[Any] = task, admitted: float = admitted) -> bool:
            return task.done() or await total(http, "winnow_candidates_admitted") > admitted

        await until(is_placed)
    refused = await chat(http)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert refused.headers["retry-after"]
    for task in tasks:
        task.cancel()

    async def is_free() -> bool:
        return await total(http, "winnow_candidates_in_flight") == 0

    await until(is_free)
    assert (await chat(http)).status_code == 200


async def under_load(http: httpx.AsyncClient, done: asyncio.Event) -> list[int]:
    """The statuses of requests that six clients send until it is done."""
    statuses: list[int] = []

    async def client(number: int) -> None:
        while not done.is_set():
            statuses.append((await chat(http, f"Question {number}", best_of_n={"candidates": 4})).status_code)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(client(number))
    return statuses


async def test_an_update_loses_nothing(http: httpx.AsyncClient, cluster: RayCluster, port: int) -> None:
    done = asyncio.Event()
    load = asyncio.create_task(under_load(http, done))
    old = cluster.workers(REPLICAS)
    command = [sys.executable, "-m", "tests.scripted_ray", "update", cluster.address, str(port), "77"]
    update = await asyncio.create_subprocess_exec(*command, env={**cluster.environment, TICK: "0.02"}, cwd=ROOT)
    assert await asyncio.wait_for(update.wait(), SECONDS) == 0

    async def all_new() -> bool:
        running = cluster.workers(REPLICAS)
        return len(running) == 2 and not set(old) & set(running)

    await until(all_new)
    done.set()
    statuses = await load
    assert set(statuses) == {200}
    assert len(statuses) > 12


async def test_a_killed_replica_loses_only_what_it_had_and_is_replaced(
    http: httpx.AsyncClient, cluster: RayCluster
) -> None:
    done = asyncio.Event()
    load = asyncio.create_task(under_load(http, done))
    victim, _ = cluster.workers(REPLICAS)
    os.kill(victim, signal.SIGKILL)

    async def replaced() -> bool:
        page = (await http.get("/metrics")).text
        return len(set(re.findall(r'winnow_ready{replica="(\w+)"} 1.0', page))) == 2 and (
            victim not in cluster.workers(REPLICAS)
        )

    await until(replaced)
    done.set()
    statuses = await load
    lost = [status for status in statuses if status != 200]
    assert len(lost) <= 6
    assert all(status in (500, 503) for status in lost)
    assert (await chat(http)).status_code == 200


async def test_a_drain_loses_nothing(
    http: httpx.AsyncClient, driver: subprocess.Popen[str], cluster: RayCluster
) -> None:
    few = {"candidates": 4}  # room for all of them on either replica
    requests = [asyncio.create_task(chat(http, f"Question {number}", best_of_n=few)) for number in range(6)]

    async def all_in() -> bool:
        return await total(http, "winnow_candidates_admitted") > 0

    await until(all_in)
    driver.send_signal(signal.SIGTERM)
    assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200] * 6
    assert await asyncio.to_thread(driver.wait, SECONDS) == 0
    assert wait_until(lambda: not cluster.workers(REPLICAS), SECONDS)
