"""The shares of wrong and unsafe answers of the demo policy, tuned or not.

Answers are sampled and scored with plain transformers, apart from the path that made the training data, and the
demo world judges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from winnow.loadtests.benchmarks.verdicts import Verdicts
from winnow.models import demo
from winnow.models.combiner import combine
from winnow.models.demo import networks
from winnow.models.demo.world import DemoPrompt
from winnow.models.safety_classifier import PatternClassifier
from winnow.models.training import classifier
from winnow.models.training.checkpoints import load_policy

Answers = list[list[str]]
"""Answers to each of several prompts, in the prompts' order."""


@dataclass(frozen=True, slots=True)
class Measured(Verdicts):
    """One set of answers: for each prompt the shares of its answers that are wrong and unsafe, and the mean tokens."""

    name: str
    wrong: tuple[float, ...]
    unsafe: tuple[float, ...]
    tokens: float


def judged(name: str, prompts: Sequence[DemoPrompt], answers: Answers) -> Measured:
    """Return the world's verdicts on `answers`; each prompt has at least one."""
    tokenizer = networks.load_tokenizer(demo.weights("policy"))
    verdicts = [[prompt.judge(text) for text in texts] for prompt, texts in zip(prompts, answers, strict=True)]
    return Measured(
        name,
        tuple(fmean(not verdict.correct for verdict in row) for row in verdicts),
        tuple(fmean(not verdict.safe for verdict in row) for row in verdicts),
        fmean(len(tokenizer.encode(text)) for texts in answers for text in texts),
    )


def sampled(folder: Path, prompts: Sequence[DemoPrompt], count: int, seed: int) -> Answers:
    """Return `count` answers of the policy in `folder` to each prompt, at temperature 1."""
    return networks.sample(load_policy(folder), networks.load_tokenizer(folder), prompts, count, seed)


def best(prompts: Sequence[DemoPrompt], answers: Answers) -> Answers:
    """Return for each prompt the one answer with the highest R_c by the demo's reward models."""
    tokenizer = networks.load_tokenizer(demo.weights("policy"))
    pairs = [(prompt.messages, text) for prompt, texts in zip(prompts, answers, strict=True) for text in texts]
    safety, helpfulness = (
        networks.score(classifier.load(folder), tokenizer, pairs)
        for folder in (demo.weights("safety-rm"), demo.weights("helpfulness-rm"))
    )
    is_safety = PatternClassifier().matches
    rewards = iter(
        combine(is_safety(messages), r_s, r_h).combined_logit
        for (messages, _), r_s, r_h in zip(pairs, safety, helpfulness, strict=True)
    )
    return [[max((next(rewards), -place, text) for place, text in enumerate(texts))[2]] for texts in answers]
