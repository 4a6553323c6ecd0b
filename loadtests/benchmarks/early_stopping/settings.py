"""The settings that are compared: exact best of K, and each way of spending less.

Every request carries its own bounds of K, so that a server whose `candidates` is a range measures the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from winnow.loadtests.load_generator import Sample
from winnow.models.statistics import percentile

K = 16
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
        return {"candidates": {"min": least, "max": most}, **self.options}


@dataclass(frozen=True, slots=True)
class Menu:
    """The settings measured in a closed loop of `clients` clients.

    `share` is the part of the prompts that are asked; a single client takes long and has the least noise.
    """

    clients: int
    exact: Sequence[int]
    accept: Sequence[float]
    rejections: Sequence[tuple[tuple[int, ...], float]]
    deadlines: Sequence[tuple[str, float]]
    share: float = 1.0

    def settings(self, calibration: Sequence[Sample]) -> list[Setting]:
        """Return every setting of this load; `calibration` has the answers of exact best of K under it."""
        return [
            *map(exact, self.exact),
            *(deadline(event, percent, calibration) for event, percent in self.deadlines),
            *map(accept, self.accept),
            *(rejection(at_tokens, keep) for at_tokens, keep in self.rejections),
            Setting("candidates {}–{}".format(*RANGE), "", RANGE),
        ]


def exact(candidates: int) -> Setting:
    """Return exact best of K with K = `candidates`."""
    return Setting(EXACT, str(candidates), (candidates, candidates))


def accept(reward: float) -> Setting:
    """Return the setting that stops as soon as R_c reaches `reward`."""
    return Setting("accept_reward", f"{reward:g}", options={"accept_reward": reward})


def rejection(at_tokens: Sequence[int], keep: float) -> Setting:
    """Return the setting that aborts the worst candidates after so many tokens, and keeps the share `keep`."""
    places = ", ".join(map(str, at_tokens))
    options = {"early_rejection": {"at_tokens": list(at_tokens), "keep": keep}}
    return Setting(f"early_rejection, keep {keep:g}", f"at [{places}]", options=options)


def deadline(event: str, percent: float, calibration: Sequence[Sample]) -> Setting:
    """Return the setting with the deadline by which `percent` of the exact answers had reached `event`.

    `event` is "first", the first finished candidate, or "last", the last score.
    """
    timings = [sample.reply.details["timings_ms"] for sample in calibration]
    spans = sorted(each["queue"] + each["first_candidate"] if event == "first" else each["total"] for each in timings)
    after = max(1.0, round(percentile(spans, percent), 1))
    return Setting("deadline_ms", f"p{percent:g} of the {event}", options={"deadline_ms": after})


_EXACT, _REWARDS = (1, 2, 4, 8, K), (0.5, 0.7, 0.8, 0.9)
_REJECTIONS = [(at_tokens, keep) for keep in (0.5, 0.25) for at_tokens in ((2,), (4,), (8,), (4, 8))]
_DEADLINES = [("first", 90.0), ("last", 10.0), ("last", 50.0), ("last", 90.0)]
FULL = (
    Menu(1, _EXACT, _REWARDS[::2], _REJECTIONS[:4], _DEADLINES[:3], share=0.5),
    Menu(8, _EXACT, _REWARDS, _REJECTIONS, _DEADLINES),
    Menu(32, _EXACT, _REWARDS[::2], _REJECTIONS[1:5:2], _DEADLINES[::2]),
)
QUICK = (
    Menu(1, (1, 4, K), (0.8,), [((4,), 0.5)], _DEADLINES[2:3], share=0.5),
    Menu(8, (1, 4, K), (0.5, 0.8), [((4,), 0.5), ((4,), 0.25)], _DEADLINES[::2]),
)
