"""Facts about the machine without its card: system, processor, memory, compilers, and folders for caches."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from winnow.models.engines.hardware import ram

COMPILERS = ("gcc", "g++", "nvcc")
_COMPILER_SECONDS = 20
_RELEASE = re.compile(r"release (\d[\w.]*)|(?<![\w.])(\d+\.\d+(?:\.\d+)?)(?![\w.])")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine; sizes in bytes. `compilers` has the version of each that is installed, else None.

    `memory` is the container's limit where that is less than the machine's; `shared_memory` is the size of /dev/shm,
    None without one. `has_python_headers` is whether C code for this Python can be compiled. `caches` says for each
    folder of caches whether it can be written.
    """

    system: str
    python: str
    cpu: str
    cores: int
    machine_memory: int
    memory: int
    free_memory: int
    shared_memory: int | None
    compilers: dict[str, str | None]
    has_python_headers: bool
    caches: dict[str, bool]


def machine(root: Path = Path("/")) -> Machine:
    """Return the facts; files are read below `root`."""
    proc = root / "proc"
    memory = ram(proc, root / "sys/fs/cgroup")
    return Machine(
        system=f"{_distribution(root)}, {platform.system()} {platform.release()}, {platform.machine()}",
        python=platform.python_version(),
        cpu=_cpu(proc),
        cores=len(os.sched_getaffinity(0)),
        machine_memory=ram(proc, root / "nothing").total,
        memory=memory.total,
        free_memory=memory.free,
        shared_memory=_size(root / "dev/shm"),
        compilers={name: compiler(name) for name in COMPILERS},
        has_python_headers=(Path(sysconfig.get_path("include")) / "Python.h").is_file(),
        caches=_caches(),
    )


def compiler(name: str) -> str | None:
    """Return the version of a compiler on the PATH, "unknown" if it does not tell, None if there is none.

    nvcc is also looked for where CUDA's installer puts it.
    """
    path = shutil.which(name) or (shutil.which("/usr/local/cuda/bin/nvcc") if name == "nvcc" else None)
    if path is None:
        return None
    try:
        told = subprocess.run(  # noqa: S603, a compiler of the operator's
            [path, "--version"], capture_output=True, text=True, errors="replace", timeout=_COMPILER_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    found = [match[1] or match[2] for match in _RELEASE.finditer(told)]
    return found[0] if found else "unknown"


def _distribution(root: Path) -> str:
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME="))
    return next(named, "unknown distribution")


def _cpu(proc: Path) -> str:
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _size(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize


def _caches() -> dict[str, bool]:
    """Return whether the home and the cache folder of this user, and a folder for temporary files, can be written."""
    home, cache = os.path.expanduser("~"), os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return {
        "home": _can_be_written(Path(home)),
        "cache": _can_be_written(Path(cache)),
        "temporary": _has_temporary_folder(),
    }


def _has_temporary_folder() -> bool:
    try:
        return _can_be_written(Path(tempfile.gettempdir()))
    except FileNotFoundError:
        return False


def _can_be_written(folder: Path) -> bool:
    """Whether `folder` can be written, or made in the nearest folder that exists."""
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    return folder.is_absolute() and os.access(existing, os.W_OK | os.X_OK)
