"""Scaling on Ray with engines that sleep: `winnow distill --ray` and `winnow serve --ray`, and what Ray's proxy costs.

The engines are the tests' scripted ones, so it runs from a checkout: a candidate takes 1 to 9 ticks, unevenly, as
answers of a real policy do, and an engine runs `SEQUENCES` at once. Sleeping, eight of them have room on a machine of
two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from winnow.loadtests.benchmarks.processes import free_port

TICK, SEQUENCES, CANDIDATES = 0.2, 16, 4
PROMPTS_EACH = 300
WINDOW = 20.0
"""Seconds over which a rate is taken; of a run, the best such window: every actor has started, and none ends."""
CLIENTS_EACH = 8
"""Clients of each replica that send one request after another: twice the candidates that its engines run at once."""
SETTLING = 10.0
"""Seconds of load before a window of replicas begins."""
LATENCIES = 300
IDLE_SECONDS = 5.0
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


def main() -> None:
    """Measure what is asked for, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["actors", "replicas", "front"])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    own = Path(sys.executable).with_name("winnow-haproxy")
    parser.add_argument("--haproxy", type=Path, default=own, help="the HAProxy that Ray runs; default: %(default)s")
    options = parser.parse_args()
    if options.what == "front":
        return print_front(options.haproxy)
    measure = {"actors": actors_rate, "replicas": replicas_rate}[options.what]
    with cluster(max(options.counts), TICK) as (address, environment):
        rates = {count: measured(measure, address, count, environment) for count in options.counts}
    first = min(rates)
    print(f"\n| {options.what} | candidates/s | efficiency |\n|---|---|---|")
    for count, found in rates.items():
        print(f"| {count} | {found:.1f} | {found / count / (rates[first] / first):.1%} |")
    return None


Measure = Callable[[str, int, Mapping[str, str]], float]


def measured(measure: Measure, address: str, count: int, environment: Mapping[str, str]) -> float:
    """Return what was measured, and tell it at once."""
    found = measure(address, count, environment)
    print(f"{count}: {found:.1f} candidates/s", file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def cluster(cpus: int, tick: float, **more: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the address of a cluster with so many CPUs, and the environment of its programs."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, **ENVIRONMENT, "SCRIPTED_TICK": str(tick), "RAY_TMPDIR": folder, **more}
        with subprocess.Popen(  # noqa: S603
            [sys.executable, "-W", "ignore", "-m", "tests.ray_cluster", "1", str(cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        ) as process:
            assert process.stdin
            assert process.stdout
            yield json.loads(process.stdout.readline())["address"], environment
            process.stdin.close()


def actors_rate(address: str, actors: int, environment: Mapping[str, str]) -> float:
    """Return the candidates a second of an offline run in its best window."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "prompts.jsonl")
        prompts = range(PROMPTS_EACH * actors)
        rows.write_text("".join(json.dumps({"prompt": f"What is {n} plus {n}?"}) + "\n" for n in prompts))
        arguments = ["distill", str(rows), "--out", str(Path(folder, "run")), "--ray", address, "--actors", str(actors)]
        arguments += ["-k", str(CANDIDATES), "--json", "--format", "none"]
        ended = subprocess.run(  # noqa: S603
            program(*arguments), env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    return best([(event["seconds"], event["candidates"]) for event in events if event["event"] == "progress"])


def program(*arguments: str) -> list[str]:
    """Return the command line of a Winnow with scripted engines."""
    own = ["--no-canary", "--max-sequences", str(SEQUENCES)]
    return [sys.executable, "-m", "tests.scripted_ray", *arguments, *own]


def best(points: Sequence[tuple[float, int]]) -> float:
    """Return the highest rate over a window of `WINDOW` seconds or a little more."""
    rates = [0.0]
    for place, (begin, before) in enumerate(points):
        later = next(((end, after) for end, after in points[place:] if end - begin >= WINDOW), None)
        if later:
            rates.append((later[1] - before) / (later[0] - begin))
    return max(rates)


@contextlib.contextmanager
def server(environment: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """Yield the address of a running `winnow serve` with these arguments."""
    port = str(free_port())
    with subprocess.Popen(  # noqa: S603
        program("serve", "--port", port, *arguments), env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "ready: " in line:
                break
        else:
            raise SystemExit("".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # else its log fills the pipe, and it waits
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)


def replicas_rate(address: str, replicas: int, environment: Mapping[str, str]) -> float:
    """Return the candidates a second of so many replicas under load."""
    with server(environment, "--ray", address, "--replicas", str(replicas)) as url:
        return asyncio.run(load(url, CLIENTS_EACH * replicas))


async def load(url: str, clients: int) -> float:
    """Return the candidates a second that the clients are answered."""
    ends: list[float] = []

    async def client(http: httpx.AsyncClient, number: int) -> None:
        for turn in range(10**6):
            (await http.post("/v1/chat/completions", json=body(CANDIDATES, number * 10**6 + turn))).raise_for_status()
            ends.append(time.monotonic())

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as http:
        running = [asyncio.create_task(client(http, number)) for number in range(clients)]
        await asyncio.sleep(SETTLING)
        begin = time.monotonic()
        await asyncio.wait(running, timeout=2 * WINDOW)
        end = time.monotonic()
        failed = [task for task in running if task.done()]
        for task in running:
            task.cancel()
        for task in failed:
            task.result()
    return CANDIDATES * sum(begin < instant < end for instant in ends) / (end - begin)


def body(candidates: int, seed: int) -> dict[str, Any]:
    """Return a chat request."""
    question = [{"role": "user", "content": "What is the moon?"}]
    return {"model": "winnow-demo", "messages": question, "seed": seed, "best_of_n": {"candidates": candidates}}


def print_front(haproxy: Path) -> None:
    """Print the time of a request with one short candidate through no proxy and through Ray's two, and its CPU."""
    rows = {}
    with cluster(1, 0.0) as (address, environment):
        with server(environment) as url:
            rows["none"] = latencies(url)
        with server(environment, "--ray", address, "--replicas", "1") as url:
            rows["Ray's proxy"] = latencies(url)
    if haproxy.exists():
        variables = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy)}
        with (
            cluster(1, 0.0, **variables) as (address, environment),
            server(environment, "--ray", address, "--replicas", "1") as url,
        ):
            rows["Ray's HAProxy, with -dS"] = latencies(url)
    print("\n| front | p50 | p99 | CPU a request |\n|---|---|---|---|")
    for name, (middle, late, cpu) in rows.items():
        print(f"| {name} | {middle * 1e3:.1f} ms | {late * 1e3:.1f} ms | {cpu * 1e3:.1f} ms |")


def latencies(url: str) -> tuple[float, float, float]:
    """Return p50 and p99 of requests one after another, and the CPU that this machine spends for each."""
    spans = []
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        for seed in range(LATENCIES // 10):
            http.post("/v1/chat/completions", json=body(1, seed)).raise_for_status()
        idle, before = idle_share(), cpu_of_own()
        for seed in range(LATENCIES):
            begin = time.perf_counter()
            http.post("/v1/chat/completions", json=body(1, seed)).raise_for_status()
            spans.append(time.perf_counter() - begin)
        spent = max(0.0, cpu_of_own() - before - idle * sum(spans))
    return statistics.median(spans), statistics.quantiles(spans, n=100)[98], spent / LATENCIES


def idle_share() -> float:
    """Return the seconds of CPU that everything started here spends in a second without requests."""
    before = cpu_of_own()
    time.sleep(IDLE_SECONDS)
    return (cpu_of_own() - before) / IDLE_SECONDS


def cpu_of_own() -> float:
    """Return the seconds of CPU of all living descendants of this process, Ray's own daemons among them."""
    children: dict[int, list[int]] = {}
    spent: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            pid = int(path.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            spent[pid] = int(fields[11]) + int(fields[12])
    found, waiting = 0, [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += sum(spent[pid] for pid in below)
        waiting += below
    return found / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
