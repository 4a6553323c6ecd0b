"""What this machine does in fact: bytes a second from memory and operations a second, measured with torch.

`python -m winnow.loadtests.benchmarks.bandwidth` prints a JSON object, so that a caller can measure in a child process, which leaves no memory
taken and no CUDA context behind. Each figure is the best of several runs: a floor is to be what nothing beats.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable

from winnow.loadtests.benchmarks.roofline import Machine

RUNS = 12
CUDA_BYTES, CPU_BYTES = 4 * 2**30, 512 * 2**20
"""Size of the copied buffer: far beyond any cache."""
CUDA_SIDE, CPU_SIDE = 8192, 2048
"""Rows and columns of the multiplied matrices."""


def measure() -> Machine:
    """Measure the first CUDA card, or the processor without one: a copy within memory, which reads and writes, and a matrix product.

    The product is of bfloat16 on a card and of float32 on a processor, as the engines compute there.
    """
    import torch

    wait: Callable[[], object]
    if torch.cuda.is_available():
        wait, device, name = torch.cuda.synchronize, "cuda", torch.cuda.get_device_name(0)
        size, side, dtype = CUDA_BYTES, CUDA_SIDE, torch.bfloat16
    else:
        wait, device, name = _nothing, "cpu", f"CPU, {torch.get_num_threads()} threads"
        size, side, dtype = CPU_BYTES, CPU_SIDE, torch.float32
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _best(lambda: target.copy_(source), wait)
    left = torch.randn(side, side, dtype=dtype, device=device)
    multiplying = _best(lambda: torch.matmul(left, left), wait)
    return Machine(name, 2 * size / copying, 2 * side**3 / multiplying, measured=True)


def measure_apart() -> Machine:
    """What `measure` finds, in a child process.

    Raises:
        RuntimeError: the child failed; the message is its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "winnow.loadtests.benchmarks.bandwidth"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"the bandwidth could not be measured: {(done.stderr.strip() or 'no reason').splitlines()[-1]}"
        )
    return Machine(**json.loads(done.stdout.splitlines()[-1]))


def _nothing() -> None:
    """A processor's work is done when the call returns."""


def _best(work: Callable[[], object], wait: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, the first ones left out."""
    seconds = []
    for _ in range(RUNS):
        wait()
        started = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds[2:])


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measure())))  # noqa: T201
