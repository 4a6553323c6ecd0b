"""What a load test asks, and when: the keys of a scenario, each with what it means. `scenario_files` reads them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from winnow.loadtests.arrivals import MOST_REQUESTS

T = TypeVar("T")
Rate = Annotated[float, Field(gt=0, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=MOST_REQUESTS)]
Rates = Rate | Annotated[tuple[Rate, ...], Field(min_length=1, max_length=32)]
Counts = Count | Annotated[tuple[Count, ...], Field(min_length=1, max_length=32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Poisson(_Part):
    """Arrivals that know nothing of each other; several rates are run one after the other."""

    kind: Literal["poisson"]
    rate: Rates = Field(description="Requests a second.")


class Constant(_Part):
    """An arrival every 1/rate seconds."""

    kind: Literal["constant"]
    rate: Rates = Field(description="Requests a second.")


class Ramp(_Part):
    """Poisson arrivals whose rate goes linearly from each rate to the next, over the scenario's seconds."""

    kind: Literal["ramp"]
    rates: tuple[Rate, ...] = Field(min_length=2, description="Requests a second, at equal distances in time.")


class Bursts(_Part):
    """Many requests at once, again and again."""

    kind: Literal["bursts"]
    size: Count = Field(description="Requests at once.")
    period: Seconds = Field(description="Seconds from one burst to the next.")


class Trace(_Part):
    """Recorded arrivals."""

    kind: Literal["trace"]
    file: Path = Field(description="Offsets in seconds, one a line, or JSON lines with `at`; beside the scenario.")


class Message(_Part):
    """One message of a dialog."""

    role: Literal["system", "user", "assistant"]
    content: str


Arrivals = Annotated[Poisson | Constant | Ramp | Bursts | Trace, Field(discriminator="kind")]
Dialog = str | Annotated[tuple[Message, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a sweep: K, and the rate or the number of clients where the scenario has one."""

    candidates: int
    rate: float | None = None
    concurrency: int | None = None

    @property
    def label(self) -> str:
        """As tables call it."""
        clients = f" · {self.concurrency} client{'s' if self.concurrency != 1 else ''}" if self.concurrency else ""
        return f"K = {self.candidates}{f' · {self.rate:g}/s' if self.rate else ''}{clients}"


class Scenario(_Part):
    """A scenario; a field's description is its documentation. Lists at `candidates`, `rate` and `concurrency` make a sweep."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$", description="What reports call it.")
    description: str = Field("", description="What it is for, in a sentence or two.")
    prompts: tuple[Dialog, ...] = Field(
        (), max_length=100_000, description="User messages, or dialogs; asked in turn, over and over."
    )
    prompts_file: Path | None = Field(
        None, description='JSON lines with "prompt" or "messages", in place of `prompts`; beside the scenario.'
    )
    system: str | None = Field(None, min_length=1, description="A system message in front of every dialog.")
    candidates: Counts = Field(description="K.")
    max_tokens: Count = Field(description="Most tokens of an answer.")
    seeded: bool = Field(True, description="Send a seed made of `seed` and the request's number, so that reruns agree.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of arrivals and requests.")
    options: dict[str, Any] = Field({}, description="Further fields of the request's body.")
    stream: bool = Field(False, description="Ask for a stream: its first byte is the answer's first words.")
    arrivals: Arrivals | None = Field(None, description="Open loop: when requests arrive.")
    concurrency: Counts | None = Field(
        None, description="Closed loop: clients, each of which asks again once it has its answer."
    )
    requests: Count | None = Field(None, description="Ends a repeat after so many requests.")
    seconds: Seconds | None = Field(None, description="Ends a repeat after so long.")
    drain: Seconds = Field(60.0, description="Seconds that outstanding requests have at a repeat's end.")
    warm_up: int = Field(4, ge=0, le=10_000, description="Requests before each point of the sweep, not counted.")
    repeats: int = Field(3, ge=1, le=100, description="How often everything is measured.")
    slo_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Milliseconds within which an answer is good."
    )
    leave_after: Seconds | None = Field(None, description="Clients hang up so many seconds after they have asked.")
    leave_share: float = Field(1.0, gt=0, le=1, description="The share of clients that do, if `leave_after` is given.")

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
            raise ValueError("options.seed: requests get seeds of their own; seeded = false turns that off")
        if managed := {"model", "messages", "stream", "stream_options", "n", "best_of"} & self.options.keys():
            raise ValueError(f"options.{min(managed)} is the load tester's own")
        return self

    @property
    def points(self) -> tuple[Point, ...]:
        """The settings that are run one after the other."""
        rates = _several(self.arrivals.rate) if isinstance(self.arrivals, Poisson | Constant) else (None,)
        clients = _several(self.concurrency) if self.concurrency else (None,)
        return tuple(Point(*setting) for setting in itertools.product(_several(self.candidates), rates, clients))


ARRIVALS: Mapping[str, type[_Part]] = {
    "poisson": Poisson, "constant": Constant, "ramp": Ramp, "bursts": Bursts, "trace": Trace,
}  # fmt: skip


def _several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,)
