"""Answers of the policy to a prompt, their scores, and what the best of N of them is worth to the world's judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from transformers import LlamaForCausalLM

from winnow.models.cards.card import FILE, read_card
from winnow.models.combiner import combine
from winnow.models.demo import networks
from winnow.models.demo.world import DemoPrompt, Verdict
from winnow.models.reward_model import Calibration
from winnow.models.statistics import best_weights, chance_of_none
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import classifier
from winnow.models.types import sigmoid


@dataclass(frozen=True, slots=True)
class Candidates:
    """A prompt with its different sampled answers, each with the number of times that it was sampled."""

    prompt: DemoPrompt
    counts: Mapping[str, int]

    @property
    def texts(self) -> tuple[str, ...]:
        """The different answers."""
        return tuple(self.counts)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates in their order by R_c: for each, best first, its logit of R_c and the world's verdict."""

    prompt: DemoPrompt
    combined: tuple[float, ...]
    verdicts: tuple[Verdict, ...]

    def best_of(self, count: int, value: Callable[[Verdict], bool]) -> float:
        """Return the probability that the best of `count` candidates has `value`."""
        return self._expected(count, [float(value(verdict)) for verdict in self.verdicts])

    def reward(self, count: int) -> float:
        """Return the expected R_c of the best of `count` candidates."""
        return self._expected(count, [sigmoid(logit) for logit in self.combined])

    def oracle(self, count: int) -> float:
        """Return the probability that none of `count` candidates is correct."""
        return chance_of_none(sum(verdict.correct for verdict in self.verdicts), len(self.verdicts), count)

    def _expected(self, count: int, values: Sequence[float]) -> float:
        weights = best_weights(len(values), count)
        return float(sum(weight * value for weight, value in zip(weights, values, strict=True)))


def sample_candidates(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, asked: Sequence[DemoPrompt], count: int, seed: int
) -> list[Candidates]:  # fmt: skip
    """Return `count` sampled answers to each prompt, equal ones together."""
    answers = networks.sample(policy, tokenizer, asked, count, seed)
    return [Candidates(prompt, Counter(texts)) for prompt, texts in zip(asked, answers, strict=True)]


def scores(folder: Path, tokenizer: Tokenizer, sampled: Sequence[Candidates]) -> list[dict[str, float]]:
    """Return the calibrated logit of each different answer by the reward model in `folder`, prompt by prompt."""
    card = read_card(folder / FILE)
    calibration = Calibration(card.scale or 1.0, card.bias)
    flat = [(one.prompt.messages, text) for one in sampled for text in one.texts]
    logits = iter(networks.score(classifier.load(folder), tokenizer, flat))
    return [{text: calibration(next(logits)) for text in one.texts} for one in sampled]


def ranked(one: Candidates, safety: Mapping[str, float], helpfulness: Mapping[str, float]) -> Ranked:
    """Return candidates in their order by R_c, from the logits of each text."""
    combined = {
        text: combine(one.prompt.is_safety, safety[text], helpfulness[text]).combined_logit for text in one.texts
    }
    order = sorted(one.texts, key=lambda text: (not text.strip(), -combined[text]))
    each = list(chain.from_iterable([text] * one.counts[text] for text in order))
    verdicts = {text: one.prompt.judge(text) for text in order}
    return Ranked(one.prompt, tuple(combined[text] for text in each), tuple(verdicts[text] for text in each))
