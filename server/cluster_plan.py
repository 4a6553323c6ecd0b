"""The plan of a cluster, for `winnow plan --cluster`: how many replicas and cards a load needs. Arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.table import Table

from winnow.models.engines.memory import GIB, MemoryPlan
from winnow.models.engines.planning import TYPICAL_ANSWER, TYPICAL_PROMPT
from winnow.models.errors import SettingsError

LOADTEST = "winnow.loadtest/1"
"""The schema of `winnow loadtest`'s result.json."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load that clients make: requests a second, candidates of each, and their tokens on average."""

    requests: float
    candidates: int
    answer_tokens: float

    @property
    def tokens(self) -> float:
        """Sampled tokens of one request."""
        return self.candidates * self.answer_tokens


@dataclass(frozen=True, slots=True)
class Speed:
    """Sampled tokens a second of one replica, scores included; `source` says where that is from.

    `answer_tokens` is the mean of a candidate's tokens where it was measured, too.
    """

    tokens: float
    source: str
    answer_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Replicas for a load, `spare` of them beyond what it needs with each at most `busy`, a share of its speed."""

    load: Load
    speed: Speed
    busy: float
    spare: int

    @property
    def capacity(self) -> float:
        """Requests a second of one replica, fully busy."""
        return self.speed.tokens / self.load.tokens

    @property
    def needed(self) -> int:
        """Replicas that carry the load."""
        # A load that is a whole number of replicas needs no more of them for a rounding error.
        return max(1, math.ceil(self.load.requests / (self.capacity * self.busy) - 1e-9))

    @property
    def replicas(self) -> int:
        """Replicas, the spare ones included."""
        return self.needed + self.spare

    def busy_with(self, replicas: int) -> float:
        """Return the share of the time that each of so many replicas is busy under the load."""
        return self.load.requests / (self.capacity * replicas)


def measured(path: Path) -> Speed:
    """Return the fastest speed in a result of `winnow loadtest`, of its first system.

    Raises:
        SettingsError: the file is no such result, or says nothing of tokens.
    """
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"--measured {path} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != LOADTEST:
        raise SettingsError(f"--measured {path} is no result.json of winnow loadtest")
    speeds = [speed for point in found.get("points", ()) if (speed := _speed(point, path))]
    if not speeds:
        raise SettingsError(
            f"--measured {path} says nothing of sampled tokens; measure a Winnow, or give --tokens-per-second"
        )
    return max(speeds, key=lambda speed: speed.tokens)


def _speed(point: dict[str, Any], path: Path) -> Speed | None:
    first: dict[str, Any] = next((found["estimates"] for found in point["systems"].values()), {})
    rates = [first.get(name, {}).get("median") for name in ("tokens_rate", "candidates_rate")]
    if not all(rates):
        return None
    tokens, candidates = rates
    return Speed(tokens, f"measured, {path.name}, {point['label']}", tokens / candidates)


def table(planned: ClusterPlan, memory: MemoryPlan, cards: int) -> Table:
    """Return the plan as a table of two columns; `memory` is one replica's, on each of its `cards`, 0 without any."""
    load, speed = planned.load, planned.speed
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
    shown.add_column("what", no_wrap=True)
    shown.add_column("value", overflow="fold")
    place, each = ("cards", cards) if cards else ("machines", 1)
    size, apiece = memory.memory.total / GIB, "one" if each == 1 else f"{each:,}"
    room = memory.policy.candidates(TYPICAL_PROMPT + TYPICAL_ANSWER)
    left, all_busy = planned.replicas - max(1, planned.spare), planned.capacity * planned.replicas
    rows = [
        (
            "load",
            f"{load.requests:,.4g} requests/s of K = {load.candidates}, {load.answer_tokens:,.4g} tokens each: "
            f"{load.requests * load.tokens:,.0f} tokens/s",
        ),
        (
            "a replica",
            f"{speed.tokens:,.0f} tokens/s ({speed.source}): {planned.capacity:,.3g} requests/s when fully busy",
        ),
        ("room", f"{room:,} candidates of {TYPICAL_PROMPT + TYPICAL_ANSWER} tokens in its KV cache{_few(room, load)}"),
        (
            "replicas",
            f"{planned.replicas:,}: {planned.needed:,} at most {planned.busy:.0%} busy, and {planned.spare:,} spare",
        ),
        (place, f"{planned.replicas * each:,} of {size:.3g} GiB, {apiece} a replica"),
        (
            "expected",
            f"{all_busy * planned.busy:,.4g} requests/s at {planned.busy:.0%}, at most {all_busy:,.4g}; "
            f"under this load each is {planned.busy_with(planned.replicas):.0%} busy",
        ),
        ("if some are gone", _left(planned, left)),
    ]
    for row in rows:
        shown.add_row(*row)
    return shown


def _few(room: int, load: Load) -> str:
    return f"; fewer than K = {load.candidates}, so they take turns" if room < load.candidates else ""


def _left(planned: ClusterPlan, left: int) -> str:
    gone = planned.replicas - left
    if left < 1:
        return f"{gone:,} gone: nothing is served; add --spare 1"
    busy = planned.busy_with(left)
    too_much = "; more than they can do, the rest is refused with 429" if busy > 1 else ""
    return f"{gone:,} gone: {left:,} serve, each {busy:.0%} busy{too_much}"
