"""What is asked of a system under test, and what came of it: the nouns of the load tests.

A `System` is anything that answers: a Winnow server, another OpenAI-compatible one, or a peer driven by its own library. Whoever
offers load (`winnow.loadtests.load_generator`) calls it and notes when each request was meant to start; a system notes only what it alone can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

ReplyKind = Literal["answered", "refused", "failed", "left"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a dialog, K, and how to sample.

    `number` is its position in the run, from 0. `options` are further fields of the request's body, taken as they are; a `best_of_n`
    among them is merged with K, and its own `candidates`, a range, come before it. `leave_after` makes a client that hangs up so many
    seconds after it has sent the request.
    """

    number: int
    messages: tuple[Mapping[str, str], ...]
    candidates: int
    max_tokens: int
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    leave_after: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a system gave back. Instants are `time.perf_counter()` seconds, spans are seconds.

    `refused` is a 429 or 503 that says so at once; `failed` is everything else that is no answer; `left` is a client that hung up
    on purpose. `first_byte` is when the first byte of the answer's body came, `done` when the answer was whole. `candidates` were
    sampled for it and `sampled_tokens` are theirs, `winner_tokens` the winner's; 0 where a system does not tell. `score_tail` is the
    time from the last finished candidate to the last score, None where unknown. `details` holds what else a system tells, as plain
    JSON values.
    """

    kind: ReplyKind
    done: float
    first_byte: float | None = None
    text: str = ""
    candidates: int = 0
    sampled_tokens: int = 0
    winner_tokens: int = 0
    score_tail: float | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class System(Protocol):
    """Something that answers. It raises nothing but `asyncio.CancelledError`: what goes wrong is a `Reply` too."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    async def ask(self, ask: Ask) -> Reply:
        """Answer one request."""
        ...
