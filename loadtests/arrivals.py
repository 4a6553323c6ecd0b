"""When requests arrive: offsets in seconds from a run's start, ascending. Pure: equal seeds give equal offsets."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from winnow.loadtests.errors import ScenarioError

MOST_REQUESTS = 200_000
"""Requests of one repeat; the samples of them all are held in memory."""


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Arrivals that know nothing of each other, `rate` a second in the mean; without end. The first one waits too."""
    draw = random.Random(seed)
    return itertools.accumulate(draw.expovariate(rate) for _ in itertools.repeat(None))


def constant(rate: float) -> Iterator[float]:
    """An arrival every 1/`rate` seconds from 0 on; without end."""
    return (number / rate for number in itertools.count())


def bursts(size: int, period: float) -> Iterator[float]:
    """`size` arrivals at once, every `period` seconds from 0 on; without end."""
    return (number // size * period for number in itertools.count())


def ramp(rates: Sequence[float], seconds: float, seed: int) -> Iterator[float]:
    """Poisson arrivals whose rate goes linearly from each of `rates` (two or more, above 0) to the next; ends after `seconds`.

    Arrivals of rate 1 are drawn, and put where as many are expected: the inverse of the rate's integral.
    """
    draw = random.Random(seed)
    leg = seconds / (len(rates) - 1)
    reached, before = draw.expovariate(1.0), 0.0
    for number, (first, last) in enumerate(itertools.pairwise(rates)):
        expected = (first + last) / 2 * leg
        while (inside := reached - before) <= expected:
            yield number * leg + _place(inside, first, (last - first) / leg, leg)
            reached += draw.expovariate(1.0)
        before += expected


def _place(expected: float, rate: float, slope: float, leg: float) -> float:
    """Seconds into a leg that begins at `rate` after which so many arrivals are expected."""
    root = math.sqrt(max(0.0, rate * rate + 2 * slope * expected))
    return min(leg, 2 * expected / (rate + root))


def until(offsets: Iterable[float], *, requests: int | None = None, seconds: float | None = None) -> list[float]:
    """The offsets before `seconds`, at most `requests` of them.

    Raises:
        ScenarioError: there are more than MOST_REQUESTS.
    """
    kept = itertools.takewhile(lambda offset: seconds is None or offset < seconds, offsets)
    found = list(itertools.islice(kept, MOST_REQUESTS + 1 if requests is None else requests))
    if len(found) > MOST_REQUESTS:
        raise ScenarioError(f"a repeat would have more than {MOST_REQUESTS:,} requests; lower the rate, or shorten it")
    return found


def read_trace(path: Path) -> list[float]:
    """A recorded trace, sorted: a file with an offset in seconds on each line, or JSON lines that have it as `at`.

    Raises:
        ScenarioError: it cannot be read, has no arrival, or a line is no offset; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"trace {path} cannot be read: {error}") from None
    offsets = [_offset(line, f"trace {path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not offsets:
        raise ScenarioError(f"trace {path} has no arrival")
    return sorted(offsets)


def _offset(line: str, where: str) -> float:
    try:
        value: Any = json.loads(line)
    except ValueError:
        value = None
    if isinstance(value, dict):
        value = value.get("at")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ScenarioError(f'{where}: seconds from the start, 0 or more, or an object with them as "at"')
    return float(value)
