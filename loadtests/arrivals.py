"""Arrival times of requests: ascending offsets in seconds from the start of a run. Equal seeds give equal offsets."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.text_lines import read_lines

MAX_REQUESTS = 200_000
"""Requests of one repeat; the samples of all of them are held in memory."""


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Yield independent arrivals with a mean of `rate` per second, without end. The first does not arrive at 0."""
    draw = random.Random(seed)
    return itertools.accumulate(draw.expovariate(rate) for _ in itertools.repeat(None))


def constant(rate: float) -> Iterator[float]:
    """Yield an arrival every 1/`rate` seconds from 0 on, without end."""
    return (number / rate for number in itertools.count())


def bursts(size: int, period: float) -> Iterator[float]:
    """Yield `size` simultaneous arrivals every `period` seconds from 0 on, without end."""
    return (number // size * period for number in itertools.count())


def ramp(rates: Sequence[float], seconds: float, seed: int) -> Iterator[float]:
    """Yield Poisson arrivals for `seconds`; their rate goes linearly from each of `rates` to the next.

    `rates` has two or more, all above 0. Arrivals are drawn at rate 1 and mapped through the inverse of
    the rate's integral.
    """
    draw = random.Random(seed)
    leg = seconds / (len(rates) - 1)
    reached, before = draw.expovariate(1.0), 0.0
    for number, (first, last) in enumerate(itertools.pairwise(rates)):
        expected = (first + last) / 2 * leg
        while (inside := reached - before) <= expected:
            yield number * leg + _time_of(inside, first, (last - first) / leg, leg)
            reached += draw.expovariate(1.0)
        before += expected


def _time_of(expected: float, rate: float, slope: float, leg: float) -> float:
    """Return the seconds into a leg, which begins at `rate`, after which `expected` arrivals are expected."""
    root = math.sqrt(max(0.0, rate * rate + 2 * slope * expected))
    return min(leg, 2 * expected / (rate + root))


def until(offsets: Iterable[float], *, requests: int | None = None, seconds: float | None = None) -> list[float]:
    """Return the offsets before `seconds`, at most `requests` of them.

    Raises:
        ScenarioError: there are more than MAX_REQUESTS.
    """
    kept = itertools.takewhile(lambda offset: seconds is None or offset < seconds, offsets)
    found = list(itertools.islice(kept, MAX_REQUESTS + 1 if requests is None else requests))
    if len(found) > MAX_REQUESTS:
        raise ScenarioError(f"a repeat would have more than {MAX_REQUESTS:,} requests; lower the rate, or shorten it")
    return found


def read_trace(path: Path) -> list[float]:
    """Return the sorted offsets of a recorded trace: seconds, one number per line, or JSON lines with an `at`.

    Raises:
        ScenarioError: the file cannot be read, has no arrival, or a line is no offset; the message has its number.
    """
    return sorted(read_lines(path, "trace", "arrival", _offset))


def _offset(line: str) -> float:
    try:
        value: Any = json.loads(line)
    except ValueError:
        value = None
    if isinstance(value, dict):
        value = value.get("at")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError('seconds from the start, 0 or more, or an object that has them as "at"')
    return float(value)
