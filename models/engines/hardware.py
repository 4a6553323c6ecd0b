"""The card as CUDA reports it, and the machine's memory as the kernel does.

The card is queried in a child process, through torch, because CUDA must not be initialised in the
server's own process, which forks its engines. NVML would not need that, but it orders cards differently
from CUDA, ignores `CUDA_VISIBLE_DEVICES` and does not see MIG slices, while torch's figure is the one that
vLLM compares its share with. The child's own context (half a GiB) counts as taken, which errs on the safe
side. The cost is one import of torch per query.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.models.engines import mps
from winnow.models.engines.memory import Memory
from winnow.models.errors import CheckpointError

_QUERY = """
import ctypes, json, torch
free, total = torch.cuda.mem_get_info(0)
driver, shared = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(-1)
is_known = not driver.cuDeviceGetAttribute(ctypes.byref(shared), 133, 0)  # CU_DEVICE_ATTRIBUTE_MPS_ENABLED
print(json.dumps({
    "name": torch.cuda.get_device_name(0), "total": total, "free": free,
    "capability": torch.cuda.get_device_capability(0), "count": torch.cuda.device_count(),
    "mps": bool(shared.value) if is_known and shared.value >= 0 else None,
}))
"""
_QUERY_SECONDS = 120
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Files with a container's limit, in version 2 and 1 of control groups."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card, its memory in bytes, its compute capability, and whether MPS shares it between processes.

    `mps` None says that neither CUDA nor the daemon's control socket tells. `count` cards are there, alike or not.
    """

    name: str
    total: int
    free: int
    capability: tuple[int, int]
    mps: bool | None
    count: int = 1

    @property
    def memory(self) -> Memory:
        """Its memory, for a plan."""
        return Memory(self.name, self.total, self.free)

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16: from compute capability 8.0, as vLLM demands."""
        return self.capability >= (8, 0)


def card() -> Card:
    """Return the first card that CUDA sees, which the engines use, with its memory as it is now.

    Raises:
        CheckpointError: there is none.
    """
    try:
        child = subprocess.run(  # noqa: S603, this interpreter and a constant
            [sys.executable, "-c", _QUERY], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        )
        return _told(json.loads(child.stdout.splitlines()[-1]))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CheckpointError(f"no GPU can be used: {reason}") from None
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        raise CheckpointError("no GPU can be used: CUDA did not report its memory") from None


def _told(told: dict[str, Any]) -> Card:
    major, minor = told["capability"]
    shared = mps.is_running() if told["mps"] is None else told["mps"]
    return Card(told["name"], told["total"], told["free"], (major, minor), shared, told.get("count", 1))


@functools.cache
def first_card() -> Card:
    """Return the card as it was when this process first asked, before it started an engine; see `card`."""
    return card()


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
