"""The settings that are compared: exact best of K, and each way of spending less.

Every request carries its own bounds of K, so that a server whose `candidates` is a range measures the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

K = 16
MORE = 24
"""The most candidates of adaptive K where it may take more than K."""
EXACT = "exact best of K"
RANGE = (2, K)
PLACES = 128
"""`max_candidates_in_flight` of the server that is started.

8 clients of K = 16 take every place, and a range shrinks from 6 clients on.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of answering. `value` tells it from others of its `group`; `options` are fields of `best_of_n`."""

    group: str
    value: str
    candidates: tuple[int, int] = (K, K)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in tables; the same at every load."""
        return f"K = {self.value}" if self.is_exact else f"{self.group}: {self.value}" if self.value else self.group

    @property
    def is_exact(self) -> bool:
        """Whether it is the best of all K, a point of the reference curve."""
        return self.group == EXACT

    @property
    def best_of_n(self) -> dict[str, Any]:
        """The `best_of_n` object of a request."""
        least, most = self.candidates
        # The least K is that of adaptive K, too; a number alone leaves it to the waves.
        bounds = most if "adaptive" in self.options else {"min": least, "max": most}
        return {"candidates": bounds, **self.options}


@dataclass(frozen=True, slots=True)
class Menu:
    """The settings measured in a closed loop of `clients` clients.

    `share` is the part of the prompts that are asked; a single client takes long and has the least noise.
    """

    clients: int
    exact: Sequence[int]
    adaptive: Sequence[Setting] = ()
    accept: Sequence[float] = ()
    rejections: Sequence[tuple[tuple[int, ...], float]] = ()
    share: float = 1.0

    def settings(self) -> list[Setting]:
        """Return every setting of this load."""
        return [
            *map(exact, self.exact),
            *self.adaptive,
            *map(accept, self.accept),
            *(rejection(at_tokens, keep) for at_tokens, keep in self.rejections),
            Setting("candidates {}–{}".format(*RANGE), "", RANGE),
        ]


def exact(candidates: int) -> Setting:
    """Return exact best of K with K = `candidates`."""
    return Setting(EXACT, str(candidates), (candidates, candidates))


def adaptive(condition: str, value: float, start: int, step: int, most: int = K) -> Setting:
    """Return adaptive K with waves of `start` and `step` candidates; `condition` is "reward" or "gain"."""
    options = {"adaptive": {"start": start, "step": step, "stop": {condition: value}}}
    return Setting(f"adaptive, {start} + {step} up to {most}", f"{condition} {value:g}", (1, most), options)


def accept(reward: float) -> Setting:
    """Return the setting that stops as soon as R_c reaches `reward`."""
    return Setting("accept_reward", f"{reward:g}", options={"accept_reward": reward})


def rejection(at_tokens: Sequence[int], keep: float) -> Setting:
    """Return the setting that aborts the worst candidates after so many tokens, and keeps the share `keep`."""
    places = ", ".join(map(str, at_tokens))
    options = {"early_rejection": {"at_tokens": list(at_tokens), "keep": keep}}
    return Setting(f"early_rejection, keep {keep:g}", f"at [{places}]", options=options)


_EXACT, _REJECTIONS = (1, 2, 4, 8, 12, K, 24, 32), [((4, 8), 0.5)]
_REWARDS = (
    *(adaptive("reward", reward, 4, 4) for reward in (0.9, 0.95)),
    *(adaptive("reward", reward, 2, 2, MORE) for reward in (0.9, 0.94, 0.96)),
)
_GAINS = tuple(adaptive("gain", gain, 2, 2, MORE) for gain in (0.004, 0.002, 0.001))


def menus(*, gains: bool, is_quick: bool = False) -> list[Menu]:
    """Return the loads with their settings; with `gains` the server knows what further candidates are worth."""
    if is_quick:
        return [Menu(clients, (1, 4, 8, K), _REWARDS[-1:], (0.9,), _REJECTIONS) for clients in (1, 8)]
    adapted = (*_REWARDS, *_GAINS) if gains else _REWARDS
    return [Menu(clients, _EXACT, adapted, (0.9,), _REJECTIONS) for clients in (1, 8, 32)]
