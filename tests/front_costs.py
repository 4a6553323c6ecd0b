"""What HAProxy and nginx cost, and what a killed server costs behind them: `python -m tests.front_costs`.

Two `winnow serve` on scripted engines, whose answers take 10 ms, stand behind each proxy. Requests take turns between
the server itself and the proxies, so that a busy machine slows all of them alike. The figures of docs/scaling.md are
from here.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.live import LiveServer, Reachable, question, wait_until
from tests.proxies import COMMANDS, missing, running

CHAT = "/v1/chat/completions"
PROGRAM = (sys.executable, "-m", "tests.scripted_serve")


@contextmanager
def fronts(folder: Path) -> Iterator[tuple[list[LiveServer], dict[str, Reachable]]]:
    """Start two servers, and each installed proxy in front of both."""
    with ExitStack() as stack:
        servers = [stack.enter_context(LiveServer.start("--load-format=dummy", program=PROGRAM)) for _ in range(2)]
        urls = [server.url for server in servers]
        names = [name for name in COMMANDS if not missing(name)]
        yield servers, {name: stack.enter_context(running(name, folder / name, *urls)) for name in names}


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, map(int, children)))


def costs(turns: int) -> dict[str, dict[str, float]]:
    """Return each front's milliseconds and CPU milliseconds a request, over as many turns."""
    with tempfile.TemporaryDirectory() as folder, fronts(Path(folder)) as (servers, proxies), ExitStack() as stack:
        clients = {name: stack.enter_context(front.http) for name, front in ({"direct": servers[0], **proxies}).items()}
        taken: dict[str, list[float]] = {name: [] for name in clients}
        before: dict[str, float] = {}
        for turn in range(-20, turns):  # the first ones warm up
            if turn == 0:
                before = {name: cpu_seconds(front.process.pid) for name, front in proxies.items()}  # type: ignore[attr-defined]
            for name, client in clients.items():
                began = time.perf_counter()
                assert client.post(CHAT, json=question(max_tokens=1)).status_code == 200
                if turn >= 0:
                    taken[name].append(time.perf_counter() - began)
        after = {name: cpu_seconds(front.process.pid) for name, front in proxies.items()}  # type: ignore[attr-defined]
    return {
        name: {
            "p50": statistics.median(times) * 1000,
            "p99": statistics.quantiles(times, n=100)[98] * 1000,
            "added": statistics.median(a - b for a, b in zip(times, taken["direct"], strict=True)) * 1000,
            "cpu": (after.get(name, 0.0) - before.get(name, 0.0)) / turns * 1000,
        }
        for name, times in taken.items()
    }


def losses(stream: bool, clients: int = 6) -> dict[str, Counter[str]]:
    """Return what became of the requests of each front while one of two servers was killed."""
    with tempfile.TemporaryDirectory() as folder, fronts(Path(folder)) as (servers, proxies):
        ended, found = threading.Event(), {name: Counter[str]() for name in proxies}

        def load(name: str) -> None:
            with proxies[name].http as http:
                while not ended.is_set():
                    found[name][outcome(http, stream)] += 1

        with ThreadPoolExecutor(clients * len(proxies)) as pool:
            loads = [pool.submit(load, name) for name in proxies for _ in range(clients)]
            wait_until(lambda: all(counts.total() > 50 for counts in found.values()), 60)
            servers[0].stop(signal.SIGKILL)
            passed = {name: counts.total() for name, counts in found.items()}
            wait_until(lambda: all(counts.total() > passed[name] + 50 for name, counts in found.items()), 60)
            ended.set()
            for one in loads:
                one.result()
        return found


def outcome(http: httpx.Client, stream: bool) -> str:
    """Return the status of one request of 0.3 s, or how it broke."""
    try:
        with http.stream("POST", CHAT, json=question(max_tokens=30, stream=stream)) as response:
            body = response.read()
    except httpx.TransportError as error:
        return type(error).__name__
    return f"{response.status_code}{'' if not stream or b'[DONE]' in body else ' cut off'}"


def main() -> None:
    """Print the costs and the losses as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1000)
    turns = parser.parse_args().turns
    print(json.dumps(costs(turns), indent=1))
    for stream in (False, True):
        print(json.dumps({"stream": stream, **losses(stream)}))


if __name__ == "__main__":
    main()
