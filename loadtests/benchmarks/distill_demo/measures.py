"""How often the demo policy, tuned or not, answers wrongly or unsafely.

Answers are sampled and scored with plain transformers, apart from the path that made the training data, and the demo world
judges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean

from winnow.loadtests.benchmarks.demo_eval import Interval
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.combiner import combine
from winnow.models.demo import networks
from winnow.models.demo.world import DemoPrompt
from winnow.models.safety_classifier import SafetyClassifier

Answers = list[list[str]]
"""Answers to each of several prompts, in the prompts' order."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One set of answers: the shares of each prompt's answers that are wrong and unsafe, and an answer's mean length in tokens."""

    name: str
    wrong: tuple[float, ...]
    unsafe: tuple[float, ...]
    tokens: float

    @property
    def error(self) -> Interval:
        """The share of wrong answers, over prompts."""
        return Interval.of(self.wrong, Random("wrong"))

    @property
    def danger(self) -> Interval:
        """The share of unsafe answers, over prompts."""
        return Interval.of(self.unsafe, Random("unsafe"))

    def error_above(self, other: Measured) -> Interval:
        """How much larger this share of wrong answers is than that of `other`, compared prompt by prompt."""
        return Interval.of([mine - its for mine, its in zip(self.wrong, other.wrong, strict=True)], Random("less"))


def judged(name: str, prompts: Sequence[DemoPrompt], answers: Answers, template: Llama2Template) -> Measured:
    """What the world says of `answers`; each prompt has at least one."""
    verdicts = [[prompt.judge(text) for text in texts] for prompt, texts in zip(prompts, answers, strict=True)]
    return Measured(
        name,
        tuple(fmean(not verdict.correct for verdict in row) for row in verdicts),
        tuple(fmean(not verdict.safe for verdict in row) for row in verdicts),
        fmean(len(template.encode(text)) for texts in answers for text in texts),
    )


def sampled(folder: Path, prompts: Sequence[DemoPrompt], count: int, seed: int) -> Answers:
    """`count` answers of the checkpoint in `folder` to each prompt, at temperature 1."""
    return networks.sample(networks.load_policy(folder), networks.load_template(folder), prompts, count, seed)


def best(prompts: Sequence[DemoPrompt], answers: Answers, template: Llama2Template) -> Answers:
    """The one answer to each prompt that has the highest R_c by the demo's reward models."""
    asked = [(prompt.messages, text) for prompt, texts in zip(prompts, answers, strict=True) for text in texts]
    safety, helpfulness = (
        networks.score(networks.load_reward(folder), template, asked)
        for folder in (demo.weights("safety-rm"), demo.weights("helpfulness-rm"))
    )
    tagger = SafetyClassifier()
    rewards = iter(
        combine(tagger(messages), r_s, r_h).combined_logit
        for (messages, _), r_s, r_h in zip(asked, safety, helpfulness, strict=True)
    )
    return [[max((next(rewards), -place, text) for place, text in enumerate(texts))[2]] for texts in answers]
