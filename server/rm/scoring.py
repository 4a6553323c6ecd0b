"""One reward model started by itself, without a policy, and its raw logits of many answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow.models.engines.base import ServedRewardModel
from winnow.models.engines.environment import may_fork, prepare
from winnow.models.engines.hub import is_local
from winnow.models.errors import CandidateFailed, RunError
from winnow.models.reward_model import require_labels, require_score
from winnow.models.types import Prompt
from winnow.server.memory_plan import part_alone
from winnow.server.reward_models import Scoring, inspect_reward_model, scoring_alone, start_reward_model
from winnow.server.rm.meter import Meter, clock
from winnow.server.rm.rows import Answer
from winnow.server.settings import Settings, of_reward_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """A reward model as the command line names it; None takes what its files say."""

    checkpoint: str
    card: Path | None = None
    role: str = "safety"
    dtype: str | None = None
    context: int | None = None
    tokenizer: str | None = None
    model: str | None = None
    key_file: Path | None = None

    @property
    def settings(self) -> Settings:
        """The settings of this one model: neither winnow.toml nor the environment is read.

        Raises:
            SettingsError: a value cannot be used.
        """
        own = {name: getattr(self, name) for name in _OWN}
        return of_reward_model(self.role, **own)


_OWN = ("checkpoint", "card", "dtype", "context", "tokenizer", "model", "key_file")


@dataclass(frozen=True, slots=True)
class Started:
    """A reward model whose engine runs, and how many answers it is given at once."""

    model: ServedRewardModel
    scoring: Scoring
    at_once: int


def inspected(choice: Choice) -> Scoring:
    """Return the reward model of a choice by its files, before anything is started.

    Raises:
        CheckpointError, SettingsError: it cannot be served.
    """
    settings = choice.settings
    prepare(offline=is_local(choice.checkpoint), compiled=False)
    return scoring_alone(settings, choice.role, inspect_reward_model(settings, choice.role))


@contextlib.contextmanager
def started(choice: Choice, scoring: Scoring) -> Iterator[Started]:
    """Start the engine of one reward model, and end it on leaving; call it before an event loop runs.

    Raises:
        CheckpointError: it cannot be started.
        DoesNotFit: the memory does not suffice.
    """
    settings, name = choice.settings, choice.role
    fork = may_fork()
    logger.info("%s: %s", Path(choice.checkpoint).name, scoring)
    model = start_reward_model(settings, name, part_alone(settings, name), scoring, fork=fork)
    at_once = settings.reward_models[name].connections if scoring.scorer.remote else settings.max_sequences
    try:
        yield Started(model, scoring, at_once)
    finally:
        model.shutdown()


Scores = Mapping[Answer, float | str]
"""Each answer's raw logit, or the reason why it has none."""


def score_all(choice: Choice, scoring: Scoring, answers: Iterable[Answer]) -> Scores:
    """Start the model, score every distinct answer, and end it.

    Raises:
        CheckpointError: the model misses its card's published scores or its labels are unlikely.
        EngineDead, ModelUnavailable: it does not answer any more.
        RunError: no answer has a score.
    """
    distinct = list(dict.fromkeys(answers))
    # Answers to one prompt stand together, so that they share its prefix.
    first: dict[str, int] = {}
    for answer in distinct:
        first.setdefault(answer.prompt, len(first))
    ordered = sorted(distinct, key=lambda answer: first[answer.prompt])
    with started(choice, scoring) as running:
        found = asyncio.run(_scored(running, choice.role, ordered))
    if all(isinstance(score, str) for score in found.values()):
        raise RunError(f"no answer could be scored: {next(iter(found.values()))}")
    return found


async def _scored(running: Started, role: str, answers: Sequence[Answer]) -> Scores:
    await _require_sound(running, role, answers[0])
    found: dict[Answer, float | str] = {}
    waiting = iter(answers)
    meter = _Meter(len(answers))

    async def work() -> None:
        for answer in waiting:
            found[answer] = await _score(running.model, answer)
            meter.show(len(found))

    workers = [asyncio.create_task(work()) for _ in range(min(running.at_once, len(answers)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        meter.end(len(found))
    return found


async def _score(model: ServedRewardModel, answer: Answer) -> float | str:
    try:
        raw = await model.score(Prompt((), answer.messages), answer.text)
    except CandidateFailed as error:
        return str(error)
    return raw if abs(raw) < float("inf") else "its score is not a finite number"


async def _require_sound(running: Started, role: str, first: Answer) -> None:
    """Check the model's label tokens, and the published scores of its card."""
    with contextlib.suppress(CandidateFailed):  # the first answer may not fit; it is then listed
        await require_labels(role, running.model, Prompt((), first.messages), first.text)
    for probe in running.scoring.scorer.card.probes:
        await require_score(role, running.model, Prompt((), probe.messages), probe)


class _Meter:
    """Progress of the scoring."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._meter = Meter()

    def show(self, done: int) -> None:
        """Show the state, if it is time to."""
        self._meter.show(lambda: self._text(done))

    def end(self, done: int) -> None:
        """Show the last state."""
        self._meter.end(self._text(done))

    def _text(self, done: int) -> str:
        rate = done / max(time.monotonic() - self._began, 1e-9)
        left = (self._total - done) / rate if rate else 0
        return f"scored {done:,} of {self._total:,} answers, {rate:,.1f} a second, {clock(left)} left"
