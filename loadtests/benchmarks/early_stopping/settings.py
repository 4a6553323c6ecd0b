"""The settings that are compared: exact best of K, and each way of spending less.

Every request says its bounds of K itself, so that a server whose `candidates` is a range measures the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from winnow.loadtests.load_generator import Sample
from winnow.loadtests.measures import percentile

K = 16
EXACT = "exact best of K"
RANGE = (2, K)
PLACES = 128
"""`max_candidates_in_flight` of the server that is started: 8 clients of K = 16 take every place, and a range shrinks from 6 clients on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of answering. `value` tells it from others of its `group`; `options` are those of `best_of_n`."""

    group: str
    value: str
    candidates: tuple[int, int] = (K, K)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tables call it; the same at every load."""
        return f"K = {self.value}" if self.is_exact else f"{self.group}: {self.value}" if self.value else self.group

    @property
    def is_exact(self) -> bool:
        """Whether it is the best of all K, a point of the reference curve."""
        return self.group == EXACT

    @property
    def best_of_n(self) -> dict[str, Any]:
        """The object that a request carries."""
        least, most = self.candidates
        return {"candidates": {"min": least, "max": most}, **self.options}


@dataclass(frozen=True, slots=True)
class Menu:
    """What is asked of a server at a load of so many `clients`, each of which asks again as soon as it is answered.

    `share` is the part of the prompts that are asked; a single client takes long and is the least noisy.
    """

    clients: int
    exact: Sequence[int]
    accept: Sequence[float]
    rejections: Sequence[tuple[tuple[int, ...], float]]
    deadlines: Sequence[tuple[str, float]]
    share: float = 1.0

    def settings(self, calibration: Sequence[Sample]) -> list[Setting]:
        """Every setting of this load; `calibration` has the answers of exact best of K under it."""
        return [
            *map(exact, self.exact),
            *(deadline(event, percent, calibration) for event, percent in self.deadlines),
            *map(accept, self.accept),
            *(rejection(at_tokens, keep) for at_tokens, keep in self.rejections),
            Setting("candidates {}–{}".format(*RANGE), "", RANGE),
        ]


def exact(candidates: int) -> Setting:
    """The best of exactly so many."""
    return Setting(EXACT, str(candidates), (candidates, candidates))


def accept(reward: float) -> Setting:
    """Stop as soon as R_c is good enough."""
    return Setting("accept_reward", f"{reward:g}", options={"accept_reward": reward})


def rejection(at_tokens: Sequence[int], keep: float) -> Setting:
    """Give up what looks worst after so many tokens."""
    places = ", ".join(map(str, at_tokens))
    options = {"early_rejection": {"at_tokens": list(at_tokens), "keep": keep}}
    return Setting(f"early_rejection, keep {keep:g}", f"at [{places}]", options=options)


def deadline(event: str, percent: float, calibration: Sequence[Sample]) -> Setting:
    """Stop when in `percent` of the exact answers the first candidate would have finished, or the last score come."""
    told = [sample.reply.details["timings_ms"] for sample in calibration]
    spans = sorted(each["queue"] + each["first_candidate"] if event == "first" else each["total"] for each in told)
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
