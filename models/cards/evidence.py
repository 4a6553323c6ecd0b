"""The evidence that a card offers: published scores that a served model has to give, and how it was calibrated."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from winnow.models.types import Message

TOLERANCE = 0.5
"""Difference of a raw logit from a published one that counts as the same: bfloat16 on other kernels moves it by 0.1."""
Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


T = TypeVar("T", bound=_Table)


class CalibrationRecord(_Table):
    """The origin of scale and bias: found on `n` rows of `data`, and the gate's precision and recall on others."""

    data: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1)]
    date: datetime.date | None = None
    precision: Share | None = None
    recall: Share | None = None

    def __str__(self) -> str:
        gate = (("precision", self.precision), ("recall", self.recall))
        found = [
            f"{self.n:,} rows of {self.data}",
            *(f"{name} {value:.2f}" for name, value in gate if value is not None),
        ]
        return ", ".join(found)


class _Turn(_Table):
    role: Literal["system", "user", "assistant"]
    content: str


class Probe(_Table):
    """One published score: the raw `logit` of `answer` behind a `dialog`, or behind a `prompt` of the user's.

    `match` is a pattern of checkpoint names that it holds for, all that the card is for by default.
    """

    prompt: str | None = None
    dialog: tuple[_Turn, ...] = Field((), strict=False)
    answer: str
    logit: FiniteFloat
    tolerance: Annotated[FiniteFloat, Field(gt=0)] = TOLERANCE
    match: str = "*"

    @model_validator(mode="after")
    def _one_conversation(self) -> Self:
        if (self.prompt is None) == (not self.dialog):
            raise ValueError("give a prompt or a dialog, not both")
        return self

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation before the answer."""
        if self.prompt is not None:
            return (Message("user", self.prompt),)
        return tuple(Message(turn.role, turn.content) for turn in self.dialog)

    def is_for(self, name: str) -> bool:
        """Whether it holds for the checkpoint called `name`."""
        return fnmatchcase(name.lower(), self.match.lower())


def parse_calibration(table: Any) -> CalibrationRecord:
    """Return a card's `[calibration]`.

    Raises:
        ValueError: a field is unknown, missing or has a value that cannot be used; the message is one line.
    """
    if not isinstance(table, Mapping):
        raise ValueError("calibration must be a table, [calibration]")
    return _checked(CalibrationRecord, "calibration", table)


def parse_probes(tables: Any) -> tuple[Probe, ...]:
    """Return a card's `[[probe]]` tables; raises as `parse_calibration` does."""
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ValueError("probe must be tables, [[probe]] each")
    return tuple(_checked(Probe, f"probe {number}", table) for number, table in enumerate(tables, 1))


def _checked(kind: type[T], name: str, table: Mapping[str, Any]) -> T:
    try:
        return kind.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name}: {place + ': ' if place else ''}{reason}") from None
