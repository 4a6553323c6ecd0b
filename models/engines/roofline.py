"""Roofline of best-of-K: the least time that a card's memory and arithmetic allow for the observed answers.

It bounds unquantised decoding that makes one token of each candidate a step, with the kernels of the three
engines one after another, as processes without MPS run them. A step reads the policy's matrices once, and for
each live candidate the keys and values of its whole context. A prompt's are read again for each candidate, as
paged attention does (a cascade kernel, which reads a shared prefix once, could go below this at large K). The
prefill makes the first token, so an answer of n tokens takes n - 1 steps.

At the end each reward model reads the answer that finished last, behind a cached prompt. Scores of candidates
that finished earlier are counted as free, as if they cost the policy nothing while it decodes. Those that
finished in the very same step cannot be free, so their cost is given separately (`Roofline.tied`). Benchmarks
with answers of one length end all K together.

Not counted: launches, sampling, activations, HTTP, tokenisers. Quantisation, speculative decoding and several
cards change the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.models.engines.shape import Shape


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's speed: bytes a second from memory, floating-point operations a second in the weights' precision.

    `measured` tells a measurement from a data sheet's figures.
    """

    name: str
    bandwidth: float
    flops: float
    measured: bool = False

    def seconds(self, read: float, computed: float) -> float:
        """Return the least time for `read` bytes and `computed` operations, each hidden behind the other."""
        return max(read / self.bandwidth, computed / self.flops)


H200 = Machine("H200", 4.8e12, 989e12)
"""NVIDIA's data sheet: HBM3e, dense bfloat16."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least seconds of one request by phase; `tied` is for candidates that finished with the last one."""

    prefill: float
    decode: float
    scoring: float
    tied: float

    @property
    def seconds(self) -> float:
        """The bound if one candidate alone finishes last."""
        return self.prefill + self.decode + self.scoring

    @property
    def seconds_tied(self) -> float:
        """The bound if all candidates that finished in the last step are scored after it."""
        return self.seconds + self.tied


def roofline(
    prompt_tokens: int,
    lengths: Sequence[int],
    policy: Shape,
    reward_models: Sequence[Shape],
    machine: Machine,
    number_bytes: int = 2,
) -> Roofline:
    """Return the bound of one request whose candidates had `lengths` tokens; numbers are `number_bytes` wide.

    Raises:
        ValueError: there is no candidate, or one without a token.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError("a roofline needs at least one candidate, each of at least one token")
    last = max(lengths)
    read = _Pass(policy, machine, number_bytes, policy.vocabulary * policy.hidden)
    scores = [_Pass(shape, machine, number_bytes, shape.hidden) for shape in reward_models]
    together = sum(length == last for length in lengths)
    alone = sum(score.prompt(last + 1, prompt_tokens) for score in scores)
    return Roofline(
        prefill=read.prompt(prompt_tokens),
        decode=sum(read.step(live, prompt_tokens + made) for made, live in enumerate(_live(lengths), start=1)),
        scoring=alone,
        tied=sum(score.prompt(last + 1, prompt_tokens, together) for score in scores) - alone,
    )


def decode_step_seconds(policy: Shape, machine: Machine, live: int, context: int, number_bytes: int = 2) -> float:
    """Return the least seconds of one decode step: a token of each of `live` candidates behind `context` tokens."""
    return _Pass(policy, machine, number_bytes, policy.vocabulary * policy.hidden).step(live, context)


def scoring_seconds(
    reward_model: Shape, machine: Machine, tokens: int, cached: int = 0, number_bytes: int = 2
) -> float:
    """Return the least seconds in which a reward model reads an answer of `tokens` tokens behind `cached` ones."""
    return _Pass(reward_model, machine, number_bytes, reward_model.hidden).prompt(tokens, cached)


def _live(lengths: Sequence[int]) -> list[int]:
    """Return the number of candidates that make a token in each step after the prefill."""
    return [sum(length > made for length in lengths) for made in range(1, max(lengths))]


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass of one model; `output` counts the numbers of its output matrix."""

    shape: Shape
    machine: Machine
    number_bytes: int
    output: int

    @property
    def _weights(self) -> int:
        """Bytes read in a pass: the input embedding is looked up, not read."""
        return (self.shape.matrices + self.output) * self.number_bytes

    def step(self, live: int, context: int) -> float:
        """Return the seconds for one token of each of `live` candidates behind `context` others."""
        read = self._weights + live * context * self.shape.cached * self.number_bytes
        return self.machine.seconds(read, live * self._flops(context, self.output))

    def prompt(self, tokens: int, cached: int = 0, rows: int = 1) -> float:
        """Return the seconds for `rows` texts of `tokens` tokens each behind `cached` tokens; one output a text."""
        read = self._weights + cached * self.shape.cached * self.number_bytes
        average = cached + (tokens + 1) / 2
        computed = rows * (tokens * self._flops(average, 0) + 2 * self.output)
        return self.machine.seconds(read, computed)

    def _flops(self, context: float, output: int) -> float:
        """Return the operations for one token: 2 per weight, and 4 per number of each token attended to."""
        attended = self.shape.layers * self.shape.heads * self.shape.head_dim
        return 2 * (self.shape.matrices + output) + 4 * attended * context
