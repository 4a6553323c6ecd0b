"""What a running engine tells of itself, beside what it samples or scores: the protocols of a model that serves."""

from __future__ import annotations

from typing import Protocol

from winnow.models.policy import Policy
from winnow.models.reward import RewardModel


class Vitals(Protocol):
    """Signs of life, as `winnow.server.life` and the metrics read them."""

    @property
    def context(self) -> int:
        """Most tokens of a request, answer included."""
        ...

    @property
    def dtype(self) -> str:
        """The precision it runs in."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether the engine's process runs."""
        ...

    @property
    def unfinished(self) -> int:
        """Requests that the engine has not finished."""
        ...

    async def is_stuck(self, seconds: float) -> bool:
        """Whether the engine owes answers and has given no sign of life for `seconds`."""
        ...


class ServedPolicy(Policy, Vitals, Protocol):
    """A policy whose engine runs."""


class ServedRewardModel(RewardModel, Vitals, Protocol):
    """A reward model whose engine runs."""
