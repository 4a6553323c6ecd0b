"""How fast best-of-K could be at all: the least time that the card's memory and arithmetic allow for the lengths that were observed.

It is the floor of unquantised decoding that makes one token of each candidate a step, with kernels of the three engines one after
another, as processes without MPS run them. A step reads the policy's matrices once, and for each live candidate the keys and values
of its whole context; a prompt's are read for each candidate anew, as paged attention does (a cascade kernel, which reads a shared
prefix once, could go below this at large K). The prefill makes the first token, so that an answer of n tokens takes n - 1 steps.

The end: behind a cached prompt each reward model reads the answer that ended last. Scores of candidates that ended earlier are
counted as free, as if they cost the policy nothing while it decodes; those that ended in the very same step cannot be, so what they add
is told apart (`Floor.tied`). With answers of one length, as benchmarks force them, all K end together.

Not counted: launches, sampling, activations, HTTP, tokenisers. Quantisation, speculative decoding and several cards change the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.loadtests.benchmarks.shapes import Shape


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it runs: bytes a second from memory, floating-point operations a second in the weights' precision.

    `measured` tells a measurement from a data sheet's figures.
    """

    name: str
    bandwidth: float
    flops: float
    measured: bool = False

    def seconds(self, read: float, computed: float) -> float:
        """The least time for `read` bytes and `computed` operations, each hidden behind the other."""
        return max(read / self.bandwidth, computed / self.flops)


H200 = Machine("H200", 4.8e12, 989e12)
"""NVIDIA's data sheet: HBM3e, dense bfloat16."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The floor of one request, in seconds, by phase; `tied` is on top of `seconds`, for candidates that ended with the last one."""

    prefill: float
    decode: float
    scoring: float
    tied: float

    @property
    def seconds(self) -> float:
        """The floor, one candidate being the last."""
        return self.prefill + self.decode + self.scoring

    @property
    def seconds_tied(self) -> float:
        """The floor when all that ended in the last step are scored behind it."""
        return self.seconds + self.tied


def floor(
    prompt_tokens: int,
    lengths: Sequence[int],
    policy: Shape,
    reward_models: Sequence[Shape],
    machine: Machine,
    number_bytes: int = 2,
) -> Floor:
    """The floor of one request whose candidates had `lengths` tokens; numbers are `number_bytes` wide.

    Raises:
        ValueError: there is no candidate, or one without a token.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError("a floor needs at least one candidate, each of at least one token")
    last = max(lengths)
    read = _Pass(policy, machine, number_bytes, policy.vocabulary * policy.hidden)
    scores = [_Pass(shape, machine, number_bytes, shape.hidden) for shape in reward_models]
    together = sum(length == last for length in lengths)
    alone = sum(score.prompt(last + 1, prompt_tokens) for score in scores)
    return Floor(
        prefill=read.prompt(prompt_tokens),
        decode=sum(read.step(live, prompt_tokens + made) for made, live in enumerate(_live(lengths), start=1)),
        scoring=alone,
        tied=sum(score.prompt(last + 1, prompt_tokens, together) for score in scores) - alone,
    )


def _live(lengths: Sequence[int]) -> list[int]:
    """Candidates that make a token in each step after the prefill."""
    return [sum(length > made for length in lengths) for made in range(1, max(lengths))]


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass of one model; `output` are the numbers of its output matrix."""

    shape: Shape
    machine: Machine
    number_bytes: int
    output: int

    @property
    def _weights(self) -> int:
        """Bytes read a pass: the input embedding is looked up, not read."""
        return (self.shape.matrices + self.output) * self.number_bytes

    def step(self, live: int, context: int) -> float:
        """One token of each of `live` candidates behind `context` others."""
        read = self._weights + live * context * self.shape.cached * self.number_bytes
        return self.machine.seconds(read, live * self._flops(context, self.output))

    def prompt(self, tokens: int, behind: int = 0, rows: int = 1) -> float:
        """`rows` texts of `tokens` tokens each in one pass, behind a cached prompt of `behind`; one output a text."""
        read = self._weights + behind * self.shape.cached * self.number_bytes
        average = behind + (tokens + 1) / 2
        computed = rows * (tokens * self._flops(average, 0) + 2 * self.output)
        return self.machine.seconds(read, computed)

    def _flops(self, context: float, output: int) -> float:
        """Operations for one token: two for each weight, and four for each number of each token attended to."""
        return 2 * (self.shape.matrices + output) + 4 * self.shape.layers * self.shape.hidden * context
