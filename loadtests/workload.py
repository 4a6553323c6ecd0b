"""From a scenario to its requests: which dialog, which seed, who leaves, and when they arrive. Reads files, asks nobody."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import assert_never

from pydantic import ValidationError

from winnow.loadtests import arrivals
from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.scenario import Bursts, Constant, Dialog, Message, Point, Poisson, Ramp, Scenario, Trace
from winnow.loadtests.types import Ask

Messages = tuple[Mapping[str, str], ...]
WARM_UP = 1_000_000_000
"""The number of the first warm-up request: none that is counted has its seed."""


def dialogs(scenario: Scenario) -> tuple[Messages, ...]:
    """The scenario's dialogs, its system message in front of each.

    Raises:
        ScenarioError: the prompt file cannot be read; the message names the line.
    """
    found = scenario.prompts if scenario.prompts_file is None else _read(scenario.prompts_file)
    opening = ({"role": "system", "content": scenario.system},) if scenario.system else ()
    return tuple((*opening, *_messages(dialog)) for dialog in found)


def _messages(dialog: Dialog) -> Messages:
    if isinstance(dialog, str):
        return ({"role": "user", "content": dialog},)
    return tuple({"role": message.role, "content": message.content} for message in dialog)


def _read(path: Path) -> list[Dialog]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"prompts {path} cannot be read: {error}") from None
    found = [_dialog(line, f"prompts {path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ScenarioError(f"prompts {path} holds no prompt")
    return found


def _dialog(line: str, where: str) -> Dialog:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):
            return str(record["prompt"])
        if isinstance(record, dict) and isinstance(record.get("messages"), list) and record["messages"]:
            return tuple(Message.model_validate(message) for message in record["messages"])
    except (ValueError, ValidationError):
        pass
    raise ScenarioError(f'{where}: an object with "prompt", a text, or with "messages", each with role and content')


def asks(scenario: Scenario, point: Point, found: Sequence[Messages], first: int = 0) -> Iterator[Ask]:
    """The requests of a point from number `first` on, without end. Equal numbers ask the same, in every repeat and of every system."""
    for number in itertools.count(first):
        yield Ask(
            number=number,
            messages=found[number % len(found)],
            candidates=point.candidates,
            max_tokens=scenario.max_tokens,
            seed=_seed(scenario.seed, number) if scenario.seeded else None,
            options=scenario.options,
            leave_after=scenario.leave_after if first < WARM_UP and _leaves(number, scenario.leave_share) else None,
        )


def _seed(seed: int, number: int) -> int:
    """A seed of 31 bits, which every server takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4]) >> 1


def _leaves(number: int, share: float) -> bool:
    """Spreads the leavers evenly."""
    return math.floor((number + 1) * share) > math.floor(number * share)


def offsets(scenario: Scenario, point: Point) -> list[float]:
    """When the requests of an open loop arrive, in seconds from a repeat's start; raises ScenarioError, as `arrivals` do."""
    match scenario.arrivals:
        case Poisson():
            found = arrivals.poisson(point.rate or 0.0, scenario.seed)
        case Constant():
            found = arrivals.constant(point.rate or 0.0)
        case Ramp(rates=rates):
            found = arrivals.ramp(rates, scenario.seconds or 0.0, scenario.seed)
        case Bursts(size=size, period=period):
            found = arrivals.bursts(size, period)
        case Trace(file=file):
            found = iter(arrivals.read_trace(file))
        case None:
            raise ValueError("a closed loop has no arrivals")
        case other:
            assert_never(other)
    kept = arrivals.until(found, requests=scenario.requests, seconds=scenario.seconds)
    if not kept:
        raise ScenarioError(f"no request arrives within {scenario.seconds:g} s; raise the rate or the seconds")
    return kept
