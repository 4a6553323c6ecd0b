"""All facts about one machine, read before anything is started."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from winnow.models.engines.environment import START_METHOD, may_fork, runs_on_gpu
from winnow.server.doctor.graphics import Graphics, graphics
from winnow.server.doctor.machine import Machine, machine
from winnow.server.doctor.privacy import environment
from winnow.server.doctor.software import Software, software
from winnow.server.settings import Settings


@dataclass(frozen=True, slots=True)
class StartMethod:
    """The start method of engines in this environment, and the reason."""

    method: Literal["fork", "spawn"]
    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings that decide what a machine must have: precision, compilation, whether engines run on a card.

    `dtype` is "bfloat16" if any engine is to compute in it.
    """

    dtype: str
    is_compiled: bool
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts; `environment` has the variables that matter, None in place of a value that is not shown."""

    machine: Machine
    graphics: Graphics
    software: Software
    wanted: Wanted
    start: StartMethod
    environment: dict[str, str | None] = field(default_factory=dict)

    @property
    def as_json(self) -> dict[str, Any]:
        """The facts as values of JSON."""
        return asdict(self)


def gather(settings: Settings) -> Facts:
    """Read the facts; on a GPU this takes the import of torch in a child process."""
    dtypes = {settings.dtype, *(engine.dtype for engine in settings.engines.values())}
    wanted = Wanted("bfloat16" if "bfloat16" in dtypes else settings.dtype, settings.compile, runs_on_gpu())
    return Facts(machine(), graphics(), software(), wanted, start_method(), environment())


def start_method() -> StartMethod:
    """Return how engines would be started, as far as it can be told before anything is imported."""
    if may_fork():
        return StartMethod("fork", "torch is not imported before the engines start")
    if os.environ.get(START_METHOD) == "spawn":
        return StartMethod("spawn", f"{START_METHOD} asks for it")
    return StartMethod("spawn", "torch has been imported before the engines start")
