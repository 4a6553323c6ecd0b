"""The available memory: a card's, read through CUDA, and the machine's, read from the kernel.

The card is queried in a child process, through torch, because CUDA must not be initialised in the
server's own process. NVML would not need that, but it orders cards differently from CUDA, ignores
`CUDA_VISIBLE_DEVICES` and does not see MIG slices, while torch's figure is the one that vLLM compares
its share with. The child's own context (half a GiB) counts as taken, which errs on the safe side. The
cost is one import of torch per start.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from winnow.models.engines.memory import Memory
from winnow.models.errors import CheckpointError

_QUERY = """
import json, torch
free, total = torch.cuda.mem_get_info(0)
print(json.dumps([torch.cuda.get_device_name(0), total, free]))
"""
_QUERY_SECONDS = 120
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Files with a container's limit, in version 2 and 1 of control groups."""


def card() -> Memory:
    """Return the memory of the first card that CUDA sees, which the engines use.

    Raises:
        CheckpointError: there is none.
    """
    try:
        child = subprocess.run(  # noqa: S603, this interpreter and a constant
            [sys.executable, "-c", _QUERY], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        )
        name, total, free = json.loads(child.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CheckpointError(f"no GPU can be used: {reason}") from None
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise CheckpointError("no GPU can be used: CUDA did not report its memory") from None
    return Memory(name, total, free)


def ram(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Memory:
    """Return the machine's memory, or the container's limit where that is less."""
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
