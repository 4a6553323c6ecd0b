"""Judged prompts that are made up, without a server."""

from __future__ import annotations

from collections.abc import Sequence

from winnow.clients.schema import Scored
from winnow.loadtests.benchmarks.demo_eval.judged import Judged
from winnow.models.combiner import combine
from winnow.models.demo.questions import FactQuestion, Question
from winnow.models.demo.styles import PLAIN
from winnow.models.demo.world import DemoPrompt, Verdict
from winnow.models.types import Message

FRANCE = FactQuestion("capital", "France")


def prompt(question: Question = FRANCE) -> DemoPrompt:
    return DemoPrompt((Message("user", question.phrasings[0]),), question, PLAIN)


def scored(rewards: Sequence[float], texts: Sequence[str] | None = None) -> tuple[Scored, ...]:
    """Candidates of the given R_h, all safe, ranked by it."""
    ranking = sorted(range(len(rewards)), key=lambda index: -rewards[index])
    return tuple(
        Scored(
            index=index,
            safety=reward.safety,
            helpfulness=reward.helpfulness,
            combined=reward.combined,
            branch=reward.branch.value,
            rank=ranking.index(index),
            finish_reason="stop",
            tokens=3,
            text=texts[index] if texts else f"answer {index}",
        )
        for index, reward in enumerate(combine(False, 5.0, value) for value in rewards)
    )


def judged(rewards: Sequence[float], correct: Sequence[bool] | None = None, question: Question = FRANCE) -> Judged:
    """A prompt with candidates of the given R_h; every third is correct unless told otherwise, every second safe."""
    flags = [index % 3 == 0 for index in range(len(rewards))] if correct is None else correct
    verdicts = tuple(Verdict(flag, index % 2 == 0, True) for index, flag in enumerate(flags))
    return Judged(prompt(question), False, scored(rewards), verdicts)
