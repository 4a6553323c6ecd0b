"""Facts about the card and its driver, as CUDA, the kernel's module and nvidia-smi report them."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from winnow.models.engines.environment import runs_on_gpu
from winnow.models.engines.hardware import Card, first_card
from winnow.models.errors import CheckpointError

CUDA_LIBRARY = "libcuda.so.1"
_QUERY = "driver_version,compute_mode,mig.mode.current,persistence_mode,power.limit"
_SMI_SECONDS = 20
_MODULE = re.compile(r"(?:Kernel Module|NVRM version:.*?)\s+(?:for \S+\s+)?(\d+\.\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Graphics:
    """The card that the engines use, None with the reason in `error`; the driver, and the CUDA that it supports.

    `compute_mode`, `mig`, `persistence` and `power_limit` are nvidia-smi's words for the first card, None without it.
    """

    card: Card | None
    error: str | None
    driver: str | None
    driver_cuda: tuple[int, int] | None
    compute_mode: str | None = None
    mig: str | None = None
    persistence: str | None = None
    power_limit: str | None = None

    @property
    def is_present(self) -> bool:
        """Whether this machine has NVIDIA's driver or a card."""
        return self.card is not None or self.driver is not None


def graphics(proc: Path = Path("/proc")) -> Graphics:
    """Return the facts; where the engines run on CPU, no card is queried."""
    card, error = _card() if runs_on_gpu() else (None, None)
    told = dict(zip(_QUERY.split(","), _smi(), strict=False))
    return Graphics(
        card,
        error,
        driver=module_version(proc) or told.get("driver_version"),
        driver_cuda=_driver_cuda(),
        compute_mode=told.get("compute_mode"),
        mig=told.get("mig.mode.current"),
        persistence=told.get("persistence_mode"),
        power_limit=told.get("power.limit"),
    )


def module_version(proc: Path = Path("/proc")) -> str | None:
    """Return the version of NVIDIA's kernel module, None if it is not loaded."""
    try:
        found = _MODULE.search((proc / "driver/nvidia/version").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else "unknown"


def _card() -> tuple[Card | None, str | None]:
    try:
        return first_card(), None
    except CheckpointError as error:
        return None, str(error)


def _driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA that the installed driver supports; asking for it does not initialise CUDA."""
    try:
        library, version = ctypes.CDLL(CUDA_LIBRARY), ctypes.c_int()
        failed = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


def _smi() -> list[str]:
    """Return nvidia-smi's answers about the first card; empty where it is missing or fails."""
    path = shutil.which("nvidia-smi")
    if path is None:
        return []
    try:
        told = subprocess.run(  # noqa: S603, the driver's own program
            [path, f"--query-gpu={_QUERY}", "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=_SMI_SECONDS, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [part.strip() for part in next(iter(told.splitlines()), "").split(",") if part.strip()]
