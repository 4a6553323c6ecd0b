"""The keys of a scenario: the requests of a load test and their arrivals. `scenario_files` reads them from TOML."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from winnow.loadtests.arrivals import MAX_REQUESTS

T = TypeVar("T")
Rate = Annotated[float, Field(gt=0, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=MAX_REQUESTS)]
Rates = Rate | Annotated[tuple[Rate, ...], Field(min_length=1, max_length=32)]
Counts = Count | Annotated[tuple[Count, ...], Field(min_length=1, max_length=32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Poisson(_Part):
    """Independent arrivals; several rates are run one after the other."""

    kind: Literal["poisson"]
    rate: Rates = Field(description="Requests per second.")


class Constant(_Part):
    """An arrival every 1/rate seconds; several rates are run one after the other."""

    kind: Literal["constant"]
    rate: Rates = Field(description="Requests per second.")


class Ramp(_Part):
    """Poisson arrivals whose rate goes linearly from each rate to the next, over the scenario's seconds."""

    kind: Literal["ramp"]
    rates: tuple[Rate, ...] = Field(min_length=2, description="Requests per second, at equal distances in time.")


class Bursts(_Part):
    """Many requests at once, repeated periodically."""

    kind: Literal["bursts"]
    size: Count = Field(description="Requests per burst.")
    period: Seconds = Field(description="Seconds from one burst to the next.")


class Trace(_Part):
    """Recorded arrivals."""

    kind: Literal["trace"]
    file: Path = Field(
        description="Offsets in seconds, one per line, or JSON lines with `at`; relative to the scenario file."
    )


class Message(_Part):
    """One message of a dialog."""

    role: Literal["system", "user", "assistant"]
    content: str


Arrivals = Annotated[Poisson | Constant | Ramp | Bursts | Trace, Field(discriminator="kind")]
PromptInput = str | Annotated[tuple[Message, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a sweep: K, and the rate or the number of clients if the scenario has one."""

    candidates: int
    rate: float | None = None
    concurrency: int | None = None

    @property
    def label(self) -> str:
        """Name in tables."""
        clients = f" · {self.concurrency} client{'s' if self.concurrency != 1 else ''}" if self.concurrency else ""
        return f"K = {self.candidates}{f' · {self.rate:g}/s' if self.rate else ''}{clients}"


class Scenario(_Part):
    """A scenario; fields have descriptions. A list for `candidates`, `rate` or `concurrency` makes a sweep."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$", description="Name in reports.")
    description: str = Field("", description="The purpose of the scenario, in a sentence or two.")
    prompts: tuple[PromptInput, ...] = Field(
        (), max_length=100_000, description="User messages, or dialogs; used in turn, over and over."
    )
    prompts_file: Path | None = Field(
        None,
        description='JSON lines with "prompt" or "messages", instead of `prompts`; relative to the scenario file.',
    )
    system: str | None = Field(None, min_length=1, description="A system message at the start of every dialog.")
    candidates: Counts = Field(description="K.")
    max_tokens: Count = Field(description="Maximum number of tokens of an answer.")
    seeded: bool = Field(
        True, description="Send a seed derived from `seed` and the request's number, so that runs can be repeated."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the arrivals and of the requests' seeds.")
    options: dict[str, Any] = Field({}, description="Further fields of the request's body.")
    stream: bool = Field(False, description="Request streams; the first byte is then the answer's first text.")
    arrivals: Arrivals | None = Field(None, description="Open loop: the arrivals of requests.")
    concurrency: Counts | None = Field(
        None, description="Closed loop: clients, each of which sends its next request when it has its answer."
    )
    requests: Count | None = Field(None, description="Requests after which a repeat ends.")
    seconds: Seconds | None = Field(None, description="Seconds after which a repeat ends.")
    drain: Seconds = Field(60.0, description="Seconds for outstanding requests at the end of a repeat.")
    warm_up: int = Field(4, ge=0, le=10_000, description="Requests before each point of the sweep, not counted.")
    repeats: int = Field(3, ge=1, le=100, description="Number of times every point is measured.")
    slo_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Latency objective in milliseconds; goodput counts the answers within it."
    )
    leave_after: Seconds | None = Field(None, description="Seconds after sending at which clients hang up.")
    leave_share: float = Field(1.0, gt=0, le=1, description="Share of the clients that hang up, with `leave_after`.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.prompts) == (self.prompts_file is not None):
            raise ValueError("give either prompts or prompts_file")
        if (self.arrivals is None) == (self.concurrency is None):
            raise ValueError("give either arrivals (an open loop) or concurrency (a closed one)")
        if isinstance(self.arrivals, Ramp) and (self.seconds is None or self.requests is not None):
            raise ValueError("a ramp takes its length from seconds, not from requests")
        if not isinstance(self.arrivals, Trace) and self.requests is None and self.seconds is None:
            raise ValueError("give requests or seconds, or both: the first to be reached ends a repeat")
        if self.seeded and "seed" in self.options:
            raise ValueError("options.seed: requests have seeds of their own; seeded = false turns that off")
        if managed := {"model", "messages", "stream", "stream_options", "n", "best_of"} & self.options.keys():
            raise ValueError(f"options.{min(managed)} is set by the load tester")
        return self

    @property
    def points(self) -> tuple[Point, ...]:
        """The settings of the sweep, run one after the other."""
        rates = _several(self.arrivals.rate) if isinstance(self.arrivals, Poisson | Constant) else (None,)
        clients = _several(self.concurrency) if self.concurrency else (None,)
        return tuple(Point(*setting) for setting in itertools.product(_several(self.candidates), rates, clients))


ARRIVALS: Mapping[str, type[_Part]] = {
    "poisson": Poisson, "constant": Constant, "ramp": Ramp, "bursts": Bursts, "trace": Trace,
}  # fmt: skip


def _several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,)
