"""The nouns of Winnow: dialog → prompt → candidates → rewards → selection.

Every stage of the pipeline takes one of these types and returns the next. They are frozen, hold plain
Python values only (no torch, no HTTP) and store no fact twice: whatever can be derived is a property.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

FinishReason = Literal["stop", "length"]
CombinerName = Literal["llama2", "safe_first"]
Reduction = Literal["load", "deadline", "temperature"]
"""The reason for which fewer candidates were started than were requested."""
Truncation = Literal["deadline", "accept_reward"]
"""The reason that ended a selection before all of its candidates had finished."""
AbortReason = Literal["deadline", "accept_reward", "early_rejection", "adaptive"]
StoppedBy = Literal["reward", "gain", "candidates", "load", "deadline"]
"""The end of a selection's waves: a condition, all K candidates, or that the next wave could not be drawn."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialog. `role` is checked by the template, which knows what order it can render."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """Return the message as JSON has it."""
        return {"role": self.role, "content": self.content}


Dialog = Sequence[Message | Mapping[str, str]]
"""A conversation, oldest message first; a mapping with `role` and `content` stands for a `Message`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered dialog, or a raw text, ready for an engine.

    `token_ids` are the policy's and include every control id (BOS, and EOS after finished turns);
    engines must add none. `messages` is the dialog they were rendered from, so that a reward model can
    render it for itself; it is empty for a raw prompt, whose text is `raw_text`. `answer_prefix` is the
    text between the last prompt token and the first character of the answer, which the answer's own
    tokens begin with (Llama 2 puts a space there). `tags` are the template's own: an answer ends where one
    of them begins, so that it can be sent back as history. `is_safety` marks a prompt whose answers are
    ranked by safety alone (Llama 2, section 3.2.3).
    """

    token_ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    is_safety: bool = False
    answer_prefix: str = ""
    raw_text: str = ""
    tags: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_raw(self) -> bool:
        """Whether no template rendered it: an answer continues its text, a leading space included."""
        return not self.messages


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token, its log-probability, and the likeliest alternatives at its place, best first.

    Log-probabilities (natural, ≤ 0) are the model's own: before temperature, filters, penalties and biases.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One finished answer sampled from the policy.

    `text` is the sampled text, cut at a stop string or a tag of the template; the reward models score it.
    `tokens` counts the sampled tokens, EOS included. `seconds` is the time from submission to the last
    token. `logprobs` are those of the sampled tokens, EOS left out, if requested. `prompt_tokens` is set where another
    server has counted the prompt, in tokens of its own: 0 if it has been counted with another candidate.
    """

    index: int
    text: str
    finish_reason: FinishReason
    tokens: int
    seconds: float = 0.0
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_tokens: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the answer has no text, or white space only."""
        return not self.text.strip()


class Branch(StrEnum):
    """The case of the piecewise combination that decided R_c."""

    SAFETY_PROMPT = "safety_prompt"
    UNSAFE = "unsafe"
    HELPFUL = "helpful"


SAFETY_THRESHOLD = 0.15
"""R_s below this, strictly, makes the safety reward decide (precision 0.89, recall 0.55 in the paper)."""


def sigmoid(logit: float) -> float:
    """Map a logit to (0, 1) in double precision, without overflow at either end."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def logit(probability: float) -> float:
    """Return the inverse of `sigmoid`; 0 and 1, to which extreme logits are rounded, give large finite ones."""
    inside = min(max(probability, 1e-300), 1 - 2**-53)
    return math.log(inside) - math.log1p(-inside)


def is_gated(safety_logit: float) -> bool:
    """Whether R_s < 0.15: the candidate counts as unsafe."""
    return sigmoid(safety_logit) < SAFETY_THRESHOLD


@dataclass(frozen=True, slots=True)
class Reward:
    """The two reward models' scores of one candidate, as logits, and the branch that decided R_c.

    `helpfulness_logit` may be None where R_h is not needed: for a safety prompt, and where R_s < 0.15. Ranking
    uses the logits, which keep an order that the sigmoid would tie.
    """

    safety_logit: float
    helpfulness_logit: float | None
    branch: Branch

    @property
    def combined_logit(self) -> float:
        """logit(R_c): of the helpfulness model in the `helpful` branch, else of the safety model."""
        if self.branch is Branch.HELPFUL:
            assert self.helpfulness_logit is not None
            return self.helpfulness_logit
        return self.safety_logit

    @property
    def safety(self) -> float:
        """R_s in (0, 1); higher is safer."""
        return sigmoid(self.safety_logit)

    @property
    def helpfulness(self) -> float | None:
        """R_h in (0, 1), or None where it was not needed."""
        return None if self.helpfulness_logit is None else sigmoid(self.helpfulness_logit)

    @property
    def combined(self) -> float:
        """R_c in (0, 1)."""
        return sigmoid(self.combined_logit)

    @property
    def is_gated(self) -> bool:
        """Whether R_s < 0.15: the candidate counts as unsafe, whichever branch decided."""
        return is_gated(self.safety_logit)


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate with its reward."""

    candidate: Candidate
    reward: Reward


def contenders(scored: Sequence[ScoredCandidate], *, empty_last: bool) -> Sequence[ScoredCandidate]:
    """Return the candidates that could win: those with text, if there are any and `empty_last` is set; else all."""
    with_text = [item for item in scored if not item.candidate.is_empty]
    return with_text if with_text and empty_last else scored


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate that could not be sampled or scored. It is not ranked, and never counted as 0."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """A candidate that was aborted on purpose, unscored, after `tokens` sampled tokens. It is not ranked."""

    index: int
    reason: AbortReason
    tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """The wall-clock time of one selection by phase, in seconds.

    `queue`: waiting for admission. From admission on: `first_candidate` until the first candidate had
    finished, `generate` until the last had, `score_tail` from there until the last score. `total`: all
    of it, the queue included.
    """

    queue: float
    first_candidate: float
    generate: float
    score_tail: float
    total: float

    def after(self, queue: float) -> Timings:
        """Return the same with a wait of `queue` seconds before it."""
        return replace(self, queue=self.queue + queue, total=self.total + queue)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a selection: `finished` of its `candidates` have been sampled, and `scored` have a score.

    `best_so_far` is the highest R_c so far, in (0, 1); None before the first score.
    """

    finished: int
    scored: int
    candidates: int
    best_so_far: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome of one best-of-N run; responses, metrics, journals and reports are views of it.

    `scored` is in candidate order, `ranking` holds positions into `scored`, best first; never empty. With
    `empty_last` an answer without text ranks below every other. `requested` is the K that was asked for, None if
    it is the number of candidates that were started; `reduced_by` is why those are fewer. `waves` and `stopped_by` are
    None where all candidates were started at once.
    """

    prompt: Prompt
    combiner: CombinerName
    scored: tuple[ScoredCandidate, ...]
    ranking: tuple[int, ...]
    failures: tuple[Failure, ...]
    timings: Timings
    aborted: tuple[Aborted, ...] = ()
    truncated_by: Truncation | None = None
    empty_last: bool = True
    requested: int | None = None
    reduced_by: Reduction | None = None
    waves: int | None = None
    stopped_by: StoppedBy | None = None

    @property
    def winner(self) -> ScoredCandidate:
        """The best candidate."""
        return self.scored[self.ranking[0]]

    @property
    def ranked(self) -> tuple[ScoredCandidate, ...]:
        """All scored candidates, best first."""
        return tuple(self.scored[position] for position in self.ranking)

    @property
    def candidates(self) -> int:
        """K: the number of candidates that were started, without those of a wave that was not needed."""
        return len(self.scored) + len(self.failures) + sum(item.reason != "adaptive" for item in self.aborted)

    @property
    def is_approximate(self) -> bool:
        """Whether candidates were aborted on a partial score: the best of all K may have been among those."""
        return any(item.reason == "early_rejection" for item in self.aborted)

    @property
    def all_unsafe(self) -> bool:
        """Whether every candidate that could win is unsafe, the winner included."""
        return all(item.reward.is_gated for item in contenders(self.scored, empty_last=self.empty_last))

    @property
    def safe_passed_over(self) -> bool:
        """Whether the winner is unsafe although another that could win is not: the paper's formula allows that."""
        return self.winner.reward.is_gated and not self.all_unsafe

    @property
    def gain(self) -> float:
        """R_c of the winner minus the mean R_c of the candidates."""
        rewards = [item.reward.combined for item in self.scored]
        return self.winner.reward.combined - sum(rewards) / len(rewards)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; where its server counts them, of all requests for its candidates together."""
        counted = [item.candidate.prompt_tokens for item in self.scored if item.candidate.prompt_tokens is not None]
        return sum(counted) if counted else len(self.prompt)

    @property
    def sampled_tokens(self) -> int:
        """Tokens of all candidates, aborted ones included; those of failed candidates are not known."""
        return sum(item.candidate.tokens for item in self.scored) + self.aborted_tokens

    @property
    def requested_tokens(self) -> int:
        """About the tokens of all `requested` candidates, by the mean of those scored."""
        mean = sum(item.candidate.tokens for item in self.scored) / len(self.scored)
        return round(mean * (self.requested or self.candidates))

    @property
    def aborted_tokens(self) -> int:
        """Tokens of the aborted candidates."""
        return sum(item.tokens for item in self.aborted)
