"""The requests of a scenario: the dialog, the seed and the time limit of each, and their arrivals."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import assert_never

from pydantic import ValidationError

from winnow.loadtests import arrivals
from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.scenario import Bursts, Constant, Message, Point, Poisson, PromptInput, Ramp, Scenario, Trace
from winnow.loadtests.text_lines import read_lines
from winnow.loadtests.types import Messages, Request

WARM_UP = 1_000_000_000
"""Number of the first warm-up request, so high that no measured request has its seed."""


def read_dialogs(scenario: Scenario) -> tuple[Messages, ...]:
    """Return the scenario's dialogs, each beginning with its system message if it has one.

    Raises:
        ScenarioError: the prompt file cannot be read; the message has the line number.
    """
    file = scenario.prompts_file
    found = scenario.prompts if file is None else read_lines(file, "prompts", "prompt", _prompt)
    opening = ({"role": "system", "content": scenario.system},) if scenario.system else ()
    return tuple((*opening, *_messages(prompt)) for prompt in found)


def _messages(prompt: PromptInput) -> Messages:
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    return tuple({"role": message.role, "content": message.content} for message in prompt)


def _prompt(line: str) -> PromptInput:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):
            return str(record["prompt"])
        if isinstance(record, dict) and isinstance(record.get("messages"), list) and record["messages"]:
            return tuple(Message.model_validate(message) for message in record["messages"])
    except (ValueError, ValidationError):
        pass
    raise ValueError('an object with "prompt", a string, or with "messages", each with role and content')


def generate_requests(
    scenario: Scenario, point: Point, dialogs: Sequence[Messages], first: int = 0
) -> Iterator[Request]:
    """Yield the requests of a point from number `first` on, without end. Equal numbers give equal requests."""
    for number in itertools.count(first):
        yield Request(
            number=number,
            messages=dialogs[number % len(dialogs)],
            candidates=point.candidates,
            max_tokens=scenario.max_tokens,
            seed=_seed(scenario.seed, number) if scenario.seeded else None,
            options=scenario.options,
            leave_after=scenario.leave_after if first < WARM_UP and _leaves(number, scenario.leave_share) else None,
        )


def _seed(seed: int, number: int) -> int:
    """Return a seed of 31 bits, which every server accepts."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4]) >> 1


def _leaves(number: int, share: float) -> bool:
    """Whether the client of this request leaves; leavers are spread evenly."""
    return math.floor((number + 1) * share) > math.floor(number * share)


def arrival_offsets(scenario: Scenario, point: Point) -> list[float]:
    """Return the arrivals of an open loop, in seconds from the start of a repeat.

    Raises:
        ScenarioError: a trace cannot be read, or there are no arrivals, or too many.
    """
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
