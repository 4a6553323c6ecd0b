"""From a line of the input to what is sampled for it: messages, arms, seeds. Pure; nothing here waits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from winnow.models.errors import RequestError, RunError, SamplingError
from winnow.models.sampling import Sampling
from winnow.models.types import CombinerName, Failure, Message, ScoredCandidate
from winnow.server.distill.parser import Overrides, Task
from winnow.server.distill.recipe import Recipe, on_every_turn, on_first_turn
from winnow.server.distill.records import Arm

MOST_CANDIDATES = 1024
"""Most candidates of a prompt, at one temperature if there are several."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a run asks of every prompt; a line's own wishes come first.

    `temperatures` are spread over the `candidates`; with `sweep` each of them gets that many.
    """

    candidates: int
    temperatures: tuple[float, ...]
    sweep: bool
    top_p: float
    max_tokens: int
    combiner: CombinerName
    seed: int
    context_distillation: bool = False
    ghost_attention: bool = False

    def __post_init__(self) -> None:
        if self.candidates > MOST_CANDIDATES:
            raise RunError(f"{self.candidates} candidates asked for; at most {MOST_CANDIDATES} are sampled")
        if not self.temperatures:
            raise RunError("name at least one temperature")
        if self.candidates > 1 and 0 in self.temperatures:
            raise RunError(
                "at temperature 0 all candidates would be the same answer; raise it, or ask for one candidate"
            )
        if not self.sweep and len(self.temperatures) > self.candidates:
            raise RunError(
                f"{len(self.temperatures)} temperatures cannot be spread over {self.candidates} candidates; raise -k, or --sweep"
            )


@dataclass(frozen=True, slots=True)
class Draw:
    """Candidates that are sampled alike: behind `behind`, and judged as answers to `messages`."""

    messages: tuple[Message, ...]
    behind: tuple[Message, ...]
    is_safety: bool
    candidates: int
    sampling: Sampling
    combiner: CombinerName
    is_limit_own: bool
    """Whether the line itself named `max_tokens`: then it is an error if they do not fit, and else they are cut."""
    has_wishes: bool
    """Whether the line asks for anything else than the run does: then a refusal may be its own fault."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of a draw; `scored` is empty if all candidates failed."""

    prompt_tokens: int
    scored: tuple[ScoredCandidate, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is asked for one line. `draws` and `arms` go together."""

    task: Task
    messages: tuple[Message, ...]
    is_safety: bool
    silent: bool
    combiner: CombinerName
    n: int
    arms: tuple[Arm, ...]
    draws: tuple[Draw, ...]

    @property
    def candidates(self) -> int:
        """K, over all arms."""
        return sum(arm.candidates for arm in self.arms)


def plan(task: Task, choices: Choices, recipe: Recipe, tagger: Callable[[tuple[Message, ...]], bool]) -> Plan:
    """What is sampled for `task`.

    Raises:
        RequestError: the line asks for something that cannot be had; the message says what to change.
    """
    own = task.overrides
    candidates = _candidates(own, choices)
    is_safety = tagger(task.messages) if task.is_safety is None else task.is_safety
    stored = behind = task.messages
    instruction = None
    if choices.ghost_attention:
        instruction = recipe.ghost_attention.instruction(
            task.instruction, task.messages, line_seed(choices.seed, task.line)
        )
    if instruction is not None:
        stored, behind = on_first_turn(stored, instruction), on_every_turn(behind, instruction)
    ways: list[tuple[tuple[Message, ...], str | None]] = [(behind, None)]
    if choices.context_distillation and is_safety:
        distillation = recipe.context_distillation
        ways.append((distillation.behind(behind, task.category), distillation.name(task.category)))
    parts = [(*way, temperature, count) for way in ways for temperature, count in _spread(task, choices, candidates)]
    combiner = own.combiner or choices.combiner
    return Plan(
        task=task,
        messages=stored,
        is_safety=is_safety,
        silent=instruction is not None and any(message.role == "assistant" for message in stored),
        combiner=combiner,
        n=own.n or 1,
        arms=tuple(Arm(count, temperature, name) for _, name, temperature, count in parts),
        draws=tuple(
            Draw(
                messages=stored,
                behind=sampled,
                is_safety=is_safety,
                candidates=count,
                sampling=_sampling(task, choices, temperature, place),
                combiner=combiner,
                is_limit_own=own.max_tokens is not None,
                has_wishes=own != Overrides(),
            )
            for place, (sampled, _, temperature, count) in enumerate(parts)
        ),
    )


def _candidates(own: Overrides, choices: Choices) -> int:
    """K. At temperature 0 all candidates would be equal, so K is 1 unless the line insists."""
    greedy = own.temperature == 0 or (own.temperature is None and choices.temperatures == (0,))
    candidates = own.candidates or (1 if greedy else choices.candidates)
    if greedy and max(candidates, own.n or 1) > 1:
        raise SamplingError(
            "at temperature 0 all candidates would be the same answer; raise it, or ask for 1", "temperature"
        )
    if candidates > MOST_CANDIDATES:
        raise RequestError(
            f"{candidates} candidates asked for; at most {MOST_CANDIDATES} are sampled", "best_of_n.candidates"
        )
    if (own.n or 1) > candidates:
        raise RequestError(f"n ({own.n}) answers cannot be returned from {candidates} candidates", "n")
    return candidates


def line_seed(seed: int, line: int, arm: int = 0) -> int:
    """The seed of an arm of a line, in [0, 2**63), from the run's: whatever was done before, a line is sampled the same."""
    digest = hashlib.blake2b(f"{seed}:{line}:{arm}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _spread(task: Task, choices: Choices, candidates: int) -> Iterator[tuple[float, int]]:
    """Temperatures and how many candidates each gets; the first ones get what is left over."""
    if task.overrides.temperature is not None:
        yield task.overrides.temperature, candidates
        return
    if choices.sweep:
        yield from ((temperature, candidates) for temperature in choices.temperatures)
        return
    each, more = divmod(candidates, len(choices.temperatures))
    for place, temperature in enumerate(choices.temperatures):
        if count := each + (place < more):
            yield temperature, count


def _sampling(task: Task, choices: Choices, temperature: float, arm: int) -> Sampling:
    own = task.overrides
    return Sampling(
        max_tokens=own.max_tokens or choices.max_tokens,
        temperature=temperature,
        top_p=own.top_p or choices.top_p,
        top_k=max(0, own.top_k or 0),
        min_p=own.min_p or 0.0,
        stop=own.stop or (),
        presence_penalty=own.presence_penalty or 0.0,
        frequency_penalty=own.frequency_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (own.logit_bias or {}).items()},
        seed=line_seed(choices.seed, task.line, arm) if own.seed is None else line_seed(own.seed, 0, arm),
    )
