"""What recording costs: pairs of blocks, and the CPU time of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from winnow.loadtests.benchmarks.recording_cost import Block, cpu_seconds, ratios


def block(cpu: float, *, is_recorded: bool) -> Block:
    return Block(is_recorded, 10, 2 * cpu, cpu, 10 * cpu)


def test_a_pair_is_compared_whichever_came_first() -> None:
    blocks = [
        block(2.2, is_recorded=True),
        block(2.0, is_recorded=False),
        block(4.0, is_recorded=False),
        block(4.4, is_recorded=True),
    ]
    for what in ("server_cpu", "all_cpu", "seconds"):
        found = ratios(blocks, what)
        assert found
        assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))


def test_the_cpu_time_of_children_and_theirs_counts() -> None:
    work = "sum(i * i for i in range(2_000_000)); print(flush=True); input()"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    before = cpu_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert cpu_seconds(os.getpid()) - before >= 0.05
        process.communicate(b"\n")
