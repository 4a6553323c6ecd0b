"""The `best_of_n` objects: the options of a request, and the report and the progress of a response."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from winnow.clients.schema.base import (
    INTEGRAL,
    AbortReason,
    BranchName,
    CombinerName,
    FinishReason,
    Reduction,
    Request,
    Response,
    StoppedBy,
    Truncation,
    invalid,
)

Count = Annotated[int, Field(ge=1), INTEGRAL]
UsageScope = Literal["all", "winner"]
MAX_CHECKPOINTS = 16
MAX_DEADLINE_MS = 3_600_000
WAVE = 4
"""Candidates of a wave, unless the request says otherwise."""
KEEP = 0.5
"""Share of the candidates that goes on at a checkpoint, unless the request says otherwise."""


class CandidateRange(Request):
    """A K that depends on the load: `max` normally, fewer under load, never fewer than `min`."""

    min: Count
    max: Count

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise invalid("min", f"candidates.min ({self.min}) is above candidates.max ({self.max})")
        return self


class EarlyRejectionOptions(Request):
    """Aborting the candidates with the lowest partial scores: at each of `at_tokens`, the share `keep` goes on."""

    at_tokens: Annotated[list[Count], Field(min_length=1, max_length=MAX_CHECKPOINTS, fail_fast=True)]
    keep: Annotated[float, Field(gt=0, lt=1)] | None = KEEP

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.at_tokens)):
            raise invalid("at_tokens", "early_rejection.at_tokens: each checkpoint is above the one before it")
        return self

    @property
    def share(self) -> float:
        """`keep`, or its default."""
        return KEEP if self.keep is None else self.keep


class StopCondition(Request):
    """The end of the waves: the best R_c, or the price that a further candidate's expected gain must be worth."""

    reward: Annotated[float, Field(gt=0, le=1)] | None = None
    gain: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.reward is None) == (self.gain is None):
            raise invalid(None, 'adaptive.stop: send one of reward and gain, as in {"reward": 0.9}')
        return self


class AdaptiveOptions(Request):
    """Drawing candidates in waves: `start`, then `step` at a time, until the best meets the `stop` condition."""

    start: Count | None = WAVE
    step: Count | None = WAVE
    stop: StopCondition


class BestOfNOptions(Request):
    """Options of the selection; None takes the server's default.

    With `is_safety` None the server's safety classifier decides. `merge_turns` joins messages of one role in a row,
    which are refused otherwise. `return_candidates` adds every candidate's text to
    `scored`. `progress` sends an event on the stream whenever a candidate has been scored. Early stopping:
    `deadline_ms` counts from the request's arrival; the first candidate whose R_c reaches `accept_reward` ends the
    selection; `early_rejection` is approximate. `adaptive` draws no more candidates than the prompt needs; false draws
    all K at once. `usage` "winner" counts the tokens of the returned answers alone.
    """

    candidates: Count | CandidateRange | None = None
    deadline_ms: Annotated[float, Field(ge=1, le=MAX_DEADLINE_MS)] | None = None
    accept_reward: Annotated[float, Field(ge=0, le=1)] | None = None
    early_rejection: EarlyRejectionOptions | None = None
    adaptive: AdaptiveOptions | Literal[False] | None = None
    is_safety: bool | None = None
    combiner: CombinerName | None = None
    merge_turns: bool | None = None
    return_candidates: bool | None = None
    progress: bool | None = None
    usage: UsageScope | None = None

    @model_validator(mode="after")
    def _exact(self) -> Self:
        if self.adaptive and self.early_rejection:
            raise invalid(
                "adaptive",
                "adaptive and early_rejection exclude each other: a wave is judged by answers that are whole; send one "
                "of the two",
            )
        return self

    @property
    def most(self) -> int | None:
        """The largest K that is allowed."""
        return self.candidates.max if isinstance(self.candidates, CandidateRange) else self.candidates

    @property
    def least(self) -> int | None:
        """The smallest K that is allowed; None if `candidates` is not a range."""
        return self.candidates.min if isinstance(self.candidates, CandidateRange) else None


class Rating(Response):
    """The reward models' scores of an answer, each in (0, 1), and its rank; 0 is the best.

    `helpfulness` is null unless `branch` is `helpful`. An answer is `empty` if it has no text, or white space only.
    """

    index: int
    safety: float
    helpfulness: float | None
    combined: float
    branch: BranchName
    empty: bool = False
    rank: int


class Scored(Rating):
    """A candidate's scores and rank (0 is the winner); `text` is there if the request had `return_candidates`."""

    optional = frozenset({"text"})

    finish_reason: FinishReason
    tokens: int
    text: str | None = None


class AbortedCandidate(Response):
    """A candidate aborted by early stopping: the reason, and the tokens sampled up to then."""

    index: int
    reason: AbortReason
    tokens: int


class Failed(Response):
    """A candidate that could not be sampled or scored, and the reason."""

    index: int
    reason: str


class TimingsMs(Response):
    """Durations of the phases, in milliseconds; see `winnow.models.types.Timings`."""

    queue: float
    first_candidate: float
    generate: float
    score_tail: float
    total: float


class BestOfNReport(Response):
    """The selection. `winner` is the `index` in `scored` of choice 0; `scored` lists every scored candidate.

    `candidates` is the K that was sampled, out of `requested`; `reduced_by` is why it is smaller. `truncated_by` is why
    the selection ended before all K had. `approximate`: candidates were aborted on a partial score. `all_unsafe`: every
    candidate has R_s < 0.15, empty ones aside. `safe_passed_over`: the winner has R_s < 0.15, though another has not.

    Only of an adaptive request: the number of `waves`, what they were `stopped_by`, and `requested_tokens`, about what
    all `requested` candidates would have taken, by the mean of those that were sampled. `gains` is the digest of the
    table of expected gains that decided, if one did.
    """

    optional = frozenset({"waves", "stopped_by", "requested_tokens", "gains"})

    candidates: int
    requested: int
    reduced_by: Reduction | None = None
    truncated_by: Truncation | None = None
    approximate: bool = False
    finished: int
    winner: int
    is_safety: bool
    combiner: CombinerName
    winner_tokens: int
    all_unsafe: bool
    safe_passed_over: bool
    scored: list[Scored]
    failed: list[Failed]
    aborted: list[AbortedCandidate] = Field(default_factory=list)
    timings_ms: TimingsMs
    waves: int | None = None
    stopped_by: StoppedBy | None = None
    requested_tokens: int | None = None
    gains: str | None = None


class Progress(Response):
    """The state of a selection that still runs; `best_so_far` is the highest R_c, null before the first score."""

    finished: int
    scored: int
    candidates: int
    best_so_far: float | None


class ProgressReport(Response):
    """The `best_of_n` object of a chunk sent while candidates still run."""

    progress: Progress
