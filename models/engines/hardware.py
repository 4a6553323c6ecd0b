"""What memory there is: the card's, asked of CUDA, and the machine's, asked of the kernel.

The card is asked in a child process, through torch. CUDA must not be initialised in the server's own process; NVML would answer
without that, but it counts cards in another order than CUDA, heeds no `CUDA_VISIBLE_DEVICES` and sees past MIG slices, while what
torch says is what vLLM will compare its share with. The child's own context (half a GiB) counts as taken, which errs on
the safe side. It costs an import of torch, once a start.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from winnow.models.engines.memory import Memory
from winnow.models.errors import CheckpointError

_ASK = """
import json, torch
free, total = torch.cuda.mem_get_info(0)
print(json.dumps([torch.cuda.get_device_name(0), total, free]))
"""
_ASK_SECONDS = 120
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Where a container's limit stands, in version 2 and 1 of control groups."""


def card() -> Memory:
    """The memory of the first card that CUDA sees, where the engines run.

    Raises:
        CheckpointError: there is none.
    """
    try:
        asked = subprocess.run(  # noqa: S603, this interpreter and our own words
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
        name, total, free = json.loads(asked.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CheckpointError(f"no GPU can be used: {reason}") from None
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise CheckpointError("no GPU can be used: CUDA did not say how much memory there is") from None
    return Memory(name, total, free)


def ram(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The machine's memory, or the container's limit where that is less."""
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    sizes = {line[0]: int(line[1]) * 1024 for line in lines if len(line) == 3}
    total = min([sizes["MemTotal:"], *_limits(groups)])
    return Memory("this machine", total, min(sizes["MemAvailable:"], total))


def _limits(groups: Path) -> list[int]:
    limits = []
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            limits.append(int((groups / name).read_text()))
    return limits
