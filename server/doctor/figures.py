"""The figures of the trials: measured times beside the roofline, and measured memory beside the plan. Arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from winnow.models.engines.roofline import Machine, decode_step_seconds, roofline, scoring_seconds
from winnow.models.engines.shape import BYTES, Shape
from winnow.models.statistics import median
from winnow.server.doctor.runner import Outcome
from winnow.server.doctor.subject import Subject

START_ORDER = ("safety", "helpfulness", "policy")
"""The order in which the service starts its engines."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured time and its roofline's floor in seconds, None if the device could not be measured.

    `candidates` is the number that ran at once; `floor_tied` also counts the scores of all candidates that ended
    together, for selections only.
    """

    candidates: int
    seconds: float
    floor: float | None
    floor_tied: float | None = None

    @property
    def ratio(self) -> float | None:
        """The time over its floor, 1 or more."""
        return self.seconds / self.floor if self.floor else None

    @property
    def ratio_tied(self) -> float | None:
        """The time over the floor that also counts the scores of candidates that ended together."""
        return self.seconds / self.floor_tied if self.floor_tied else None

    @property
    def as_json(self) -> dict[str, Any]:
        """The figures as values of JSON."""
        return {**asdict(self), "ratio": self.ratio, "ratio_tied": self.ratio_tied}


@dataclass(frozen=True, slots=True)
class Part:
    """The memory of one engine, or of all, in bytes: by the plan, and the most that was measured."""

    name: str
    planned: int
    measured: int

    @property
    def is_exceeded(self) -> bool:
        """Whether more was taken than planned."""
        return self.measured > self.planned


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures; empty or None where the trial failed. `parts` ends with the total.

    `scored` of `candidates` candidates have two finite scores. `least_free` and `total` are bytes of the card, or of
    the machine.
    """

    device: Machine | None
    steps: tuple[Timed, ...] = ()
    score: Timed | None = None
    selections: tuple[Timed, ...] = ()
    candidates: int = 0
    scored: int = 0
    parts: tuple[Part, ...] = ()
    least_free: int | None = None
    total: int | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        """The figures as values of JSON."""
        return {
            "decode_steps": [step.as_json for step in self.steps],
            "score": self.score.as_json if self.score else None,
            "selections": [selection.as_json for selection in self.selections],
            "candidates": self.candidates,
            "scored": self.scored,
            "memory": [{**asdict(part), "exceeded": part.is_exceeded} for part in self.parts],
            "least_free": self.least_free,
            "total": self.total,
        }


def figures(subject: Subject, outcomes: Mapping[str, Outcome]) -> Figures:
    """Return the figures of trials on `subject`, by their names."""
    found = {name: outcome.found for name, outcome in outcomes.items()}
    measured = found.get("device", {}).get("machine")
    device = Machine(**measured) if measured else None
    service = outcomes.get("service")
    rows = found.get("service", {}).get("best_of", [])
    planned = found.get("service", {}).get("plan")
    parts = _parts(planned, service) if planned and service else ()
    return Figures(
        device,
        steps=_steps(subject.shapes["policy"], found.get("policy", {}), device),
        score=_score(subject.shapes["safety"], found.get("reward_model", {}), device),
        selections=_selections(subject, rows, found.get("service", {}), device),
        candidates=sum(row["candidates"] for row in rows),
        scored=sum(row["scored"] for row in rows),
        parts=parts,
        least_free=service.taken.least_free if parts and service and service.taken else None,
        total=planned["total"] if parts and planned else None,
    )


def _steps(shape: Shape, found: Mapping[str, Any], device: Machine | None) -> tuple[Timed, ...]:
    width = BYTES.get(found.get("dtype", ""), 2)
    return tuple(
        Timed(
            row["candidates"],
            row["step_seconds"],
            decode_step_seconds(shape, device, row["candidates"], row["context"], width) if device else None,
        )
        for row in found.get("decode", ())
    )


def _score(shape: Shape, found: Mapping[str, Any], device: Machine | None) -> Timed | None:
    row = found.get("score")
    if not row:
        return None
    width = BYTES[found["dtype"]]
    tokens, cached = row["answer_tokens"] + 1, row["prompt_tokens"]  # EOS is read too
    return Timed(1, row["seconds"], scoring_seconds(shape, device, tokens, cached, width) if device else None)


def _selections(
    subject: Subject, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any], device: Machine | None
) -> tuple[Timed, ...]:
    policy, *models = (subject.shapes[name] for name in ("policy", "safety", "helpfulness"))
    timed = []
    for candidates in dict.fromkeys(row["candidates"] for row in rows):
        own = [row for row in rows if row["candidates"] == candidates]
        seconds = median(row["seconds"] for row in own)
        lengths = next((row["lengths"] for row in own if row["lengths"]), None)
        if device is None or lengths is None:
            timed.append(Timed(candidates, seconds, None))
            continue
        bound = roofline(own[0]["prompt_tokens"], lengths, policy, models, device, BYTES[found["dtypes"]["policy"]])
        timed.append(Timed(candidates, seconds, bound.seconds, bound.seconds_tied))
    return tuple(timed)


def _parts(planned: Mapping[str, Any], service: Outcome) -> tuple[Part, ...]:
    """Return planned and measured memory, engine by engine and in all.

    On a card the policy's part is planned again from what the reward models have really left, so it may take what
    they did not.
    """
    taken = service.taken
    if taken is None or len(taken.engines) != len(START_ORDER):
        return ()
    on_card, left, parts = planned["margin"] > 0, 0, []
    for name, measured in zip(START_ORDER, taken.engines, strict=True):
        held = planned["engines"][name]["held"] + (left if name == "policy" and on_card else 0)
        left += max(0, held - measured)
        parts.append(Part(name, held, measured))
    return (*parts, Part("all", planned["needed"] - planned["margin"], taken.total))
