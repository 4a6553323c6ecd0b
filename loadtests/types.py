"""The nouns of the load tests: a request, its reply, and the target that answers it.

A `Target` may be a Winnow server, another OpenAI-compatible server, or a baseline driven by its own library.
The load generator notes when each request was due; a target notes only what it alone can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

ReplyKind = Literal["answered", "refused", "failed", "left"]
Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a dialog, K, and sampling options.

    `number` is its position in the run, from 0. `options` are further fields of the body, sent unchanged; a
    `best_of_n` among them is merged with K, and a range of `candidates` in it takes precedence. `leave_after`
    is the time in seconds after which the client hangs up; None never does.
    """

    number: int
    messages: Messages
    candidates: int
    max_tokens: int
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    leave_after: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a request. Instants are `time.perf_counter()` seconds, durations are seconds.

    `refused` is a 429, or a 503 of a server that is busy or stopping; `left` is a client that hung up on
    purpose; `failed` is everything else without an answer. `first_byte` is when the first byte of the answer's
    body arrived, `done` when the answer was complete. `candidates` were sampled for it, with `sampled_tokens`
    in total and `winner_tokens` of the winner. `score_tail` is the time from the last finished candidate to the
    last score. All three are None where the target does not say. `details` has everything else the target
    reports, as plain JSON values.
    """

    kind: ReplyKind
    done: float
    first_byte: float | None = None
    text: str = ""
    candidates: int = 0
    sampled_tokens: int | None = None
    winner_tokens: int | None = None
    score_tail: float | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """A system under test. It raises nothing but `asyncio.CancelledError`: a failure is a `Reply` too."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    async def send(self, request: Request) -> Reply:
        """Send one request and return its reply."""
        ...
