"""`make bench-recording`: what recording costs, by turns on one server that records what a request asks it to.

The server runs with `record = opt_in`; blocks of requests with `"store": true` and `"store": false` take turns, in the
order on, off, off, on, so that a machine that slows down or speeds up meanwhile favours neither. What is compared is
the CPU time of the server and its engines a request, which other programs on the machine disturb far less than requests
a second. A block ends once its answers are written. The same prompts are asked in each block, with the same seeds.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from winnow.loadtests.benchmarks.winnow_process import DEMO_MODELS, as_json, winnow_server
from winnow.models.demo.world import held_out_prompts
from winnow.models.statistics import Interval, interval_of_repeats

CLIENTS = 32
SETTLE_SECONDS = 0.3
"""Pause between two looks at whether all answers are written: the recorder gathers them for a second."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Block:
    """Some requests, all recorded or none: wall-clock seconds, and CPU seconds of the server and of all processes."""

    is_recorded: bool
    requests: int
    seconds: float
    server_cpu: float
    all_cpu: float


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process's descendants, without its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_own(int(child)) + cpu_seconds(int(child)) for child in children)


def _own(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def ratios(blocks: Sequence[Block], what: str) -> Interval | None:
    """Return recording over not recording, of `server_cpu`, `all_cpu` or `seconds`, over pairs of neighbours."""
    pairs = zip(blocks[::2], blocks[1::2], strict=True)
    return interval_of_repeats(
        getattr(one if one.is_recorded else other, what) / getattr(other if one.is_recorded else one, what)
        for one, other in pairs
    )


async def _ask(http: httpx.AsyncClient, requests: int, candidates: int, *, store: bool) -> None:
    prompts = held_out_prompts(requests)
    waiting = iter(range(requests))

    async def client() -> None:
        for number in waiting:
            prompt = prompts[number]
            body = {
                "model": "winnow-demo",
                "messages": as_json(prompt.messages),
                "seed": number,
                "store": store,
                "best_of_n": {"candidates": candidates},
            }
            (await http.post("/v1/chat/completions", json=body)).raise_for_status()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _counted(http: httpx.AsyncClient) -> dict[str, float]:
    """Return the metrics without labels, once nothing waits to be written."""
    while True:
        await asyncio.sleep(SETTLE_SECONDS)
        text = (await http.get("/metrics")).text
        found = {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.M)}
        if not found["winnow_store_waiting"]:
            return found


async def measured(url: str, rounds: int, requests: int, candidates: int) -> list[Block]:
    """Ask by turns and return what each block took; a first block, not returned, warms everything up."""
    blocks = []
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits) as http:
        await _ask(http, requests, candidates, store=True)
        for number in range(2 * rounds):
            is_recorded = number % 4 in (0, 3)
            before, all_before, began = await _counted(http), cpu_seconds(os.getpid()), time.perf_counter()
            await _ask(http, requests, candidates, store=is_recorded)
            seconds = time.perf_counter() - began
            after, all_after = await _counted(http), cpu_seconds(os.getpid())
            name = "process_cpu_seconds_total"
            blocks.append(Block(is_recorded, requests, seconds, after[name] - before[name], all_after - all_before))
            written = after["winnow_store_written_total"] - before["winnow_store_written_total"]
            assert written == requests * is_recorded, "answers were dropped"
    return blocks


def main(
    rounds: Annotated[int, typer.Option(min=2, help="Pairs of blocks.")] = 10,
    requests: Annotated[int, typer.Option(min=CLIENTS, help="Requests of a block.")] = 128,
    candidates: Annotated[int, typer.Option(min=1, help="K.")] = 8,
) -> None:
    """Print what recording costs."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--store", f"{folder}/winnow.db", "--record", "opt_in", *DEMO_MODELS]
        with winnow_server(flags, Path(folder) / "log") as url:
            blocks = asyncio.run(measured(url, rounds, requests, candidates))
    for is_recorded in (False, True):
        mine = [block for block in blocks if block.is_recorded is is_recorded]
        number = sum(block.requests for block in mine)
        per = {name: 1000 * sum(getattr(block, name) for block in mine) / number for name in ("server_cpu", "all_cpu")}
        rate = number / sum(block.seconds for block in mine)
        about = f"server {per['server_cpu']:.2f} ms, with engines {per['all_cpu']:.2f} ms"
        print(f"{'on ' if is_recorded else 'off'}: {rate:.1f} requests/s; CPU a request: {about}")
    for name in ("server_cpu", "all_cpu", "seconds"):
        found = ratios(blocks, name)
        assert found
        print(f"on/off {name}: {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")


if __name__ == "__main__":
    typer.run(main)
