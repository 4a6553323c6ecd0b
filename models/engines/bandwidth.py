"""Measures this machine with torch: bytes a second from memory, and floating-point operations a second.

`python -m winnow.models.engines.bandwidth` prints a JSON object, so that a caller can measure in a child
process, which leaves no memory allocated and no CUDA context behind. Each figure is the best of several runs,
because a bound must hold for every run.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable

from winnow.models.engines.hardware import ram
from winnow.models.engines.roofline import Machine

RUNS, WARM_UP_RUNS = 12, 2
CUDA_BYTES, CPU_BYTES = 4 * 2**30, 512 * 2**20
"""Size of the copied buffer, of which there are two: far beyond any cache."""
FREE_SHARE = 4
"""A buffer takes at most one part in FREE_SHARE of the free memory."""
CUDA_SIDE, CPU_SIDE = 8192, 2048
"""Rows and columns of the multiplied matrices."""


def measure() -> Machine:
    """Measure the first CUDA card, or the processor without one, by a copy within memory and a matrix product.

    The copy reads and writes. The product is of bfloat16 on a card (float16 on one that has no bfloat16) and of
    float32 on a processor, as the engines compute there.
    """
    import torch

    wait: Callable[[], object]
    if torch.cuda.is_available():
        wait, device, name = torch.cuda.synchronize, "cuda", torch.cuda.get_device_name(0)
        size, side = min(CUDA_BYTES, torch.cuda.mem_get_info(0)[0] // FREE_SHARE), CUDA_SIDE
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = torch.bfloat16 if has_bfloat16 else torch.float16
    else:
        wait, device, name = _no_wait, "cpu", f"CPU, {torch.get_num_threads()} threads"
        size, side, dtype = min(CPU_BYTES, ram().free // FREE_SHARE), CPU_SIDE, torch.float32
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_seconds = _best(lambda: target.copy_(source), wait)
    left = torch.randn(side, side, dtype=dtype, device=device)
    product_seconds = _best(lambda: torch.matmul(left, left), wait)
    return Machine(name, 2 * size / copy_seconds, 2 * side**3 / product_seconds, measured=True)


def measure_in_child() -> Machine:
    """Return `measure()` of a child process.

    Raises:
        RuntimeError: the child failed; the message is its last line.
    """
    command = [sys.executable, "-m", "winnow.models.engines.bandwidth"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, our own command
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise RuntimeError(f"the bandwidth could not be measured: {reason}")
    return Machine(**json.loads(done.stdout.splitlines()[-1]))


def _no_wait() -> None:
    """Do nothing: a processor's work is done when the call returns."""


def _best(work: Callable[[], object], wait: Callable[[], object]) -> float:
    """Return the seconds of the fastest run after the warm-up."""
    seconds = []
    for _ in range(RUNS):
        wait()
        started = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds[WARM_UP_RUNS:])


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measure())))
