"""The figures of a round: errors, unsafe answers and R_c of the best of N, and how each reward model ranks pairs.

A quick check over transformers while the models are trained, judged by the world. `make demo-eval` measures the served
models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from winnow.models.demo import networks
from winnow.models.demo.candidates import Candidates, Ranked, ranked, scores
from winnow.models.demo.world import Kind, held_out_pairs
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import classifier
from winnow.models.training.evaluation import pair_accuracy, precision_and_recall, share
from winnow.models.types import SAFETY_THRESHOLD, is_gated

SIZES = (1, 2, 4, 8, 16, 32, 64)
PAIRS = 2_000
CATEGORIES_AT = 16


@dataclass(frozen=True, slots=True)
class Figures:
    """The worth of a round's reward models on held-out prompts; lists have one entry for each of `sizes`.

    `hard_pairs` is the share of prompts whose best-scored good answer of all candidates is above the best-scored bad
    one. Precision and recall are those of R_s < 0.15.
    """

    sizes: tuple[int, ...]
    error: list[float]
    oracle: list[float]
    unsafe: list[float]
    reward: list[float]
    pairs: dict[Kind, float]
    hard_pairs: dict[Kind, float]
    precision: float
    recall: float
    by_category: dict[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return asdict(self)

    def __str__(self) -> str:
        rows = zip(self.sizes, self.error, self.oracle, self.unsafe, self.reward, strict=True)
        lines = [f"N={n:<3} wrong {e:.3f} (oracle {o:.3f}) unsafe {u:.4f} R_c {r:.3f}" for n, e, o, u, r in rows]
        lines += [
            f"{kind}: pairs {self.pairs[kind]:.3f}, of the best of 64 {self.hard_pairs[kind]:.3f}"
            for kind in self.pairs
        ]
        lines += [f"R_s < {SAFETY_THRESHOLD}: precision {self.precision:.3f} recall {self.recall:.3f}"]
        lines += [
            f"  {name:<11} wrong at 1 {one:.3f}, at {CATEGORIES_AT} {many:.3f}"
            for name, (one, many) in self.by_category.items()
        ]
        return "\n".join(lines)


def figures(sampled: Sequence[Candidates], models: Mapping[Kind, Path], tokenizer: Tokenizer) -> Figures:
    """Return the figures of the reward models in the folders `models`, on sampled answers to held-out prompts."""
    scored = {kind: scores(folder, tokenizer, sampled) for kind, folder in models.items()}
    rows = [ranked(*one) for one in zip(sampled, scored["safety"], scored["helpfulness"], strict=True)]
    precision, recall = _gate(sampled, scored["safety"])
    return Figures(
        SIZES,
        [fmean(row.best_of(size, lambda verdict: not verdict.correct) for row in rows) for size in SIZES],
        [fmean(row.oracle(size) for row in rows) for size in SIZES],
        [fmean(row.best_of(size, lambda verdict: not verdict.safe) for row in rows) for size in SIZES],
        [fmean(row.reward(size) for row in rows) for size in SIZES],
        {kind: _pairs(folder, tokenizer, kind) for kind, folder in models.items()},
        {kind: _hard_pairs(sampled, scored[kind], kind) for kind in models},
        precision,
        recall,
        _by_category(rows),
    )


def _gate(sampled: Sequence[Candidates], safety: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return precision and recall of R_s < 0.15, an answer counting as often as it was sampled."""
    gated, unsafe = [], []
    for one, logits in zip(sampled, safety, strict=True):
        for text, logit in logits.items():
            gated += [is_gated(logit)] * one.counts[text]
            unsafe += [not one.prompt.judge(text).safe] * one.counts[text]
    return precision_and_recall(gated, unsafe)


def _pairs(folder: Path, tokenizer: Tokenizer, kind: Kind) -> float:
    pairs = held_out_pairs(PAIRS, kind=kind)
    model = classifier.load(folder)
    chosen = networks.score(model, tokenizer, [(pair.messages, pair.chosen) for pair in pairs])
    rejected = networks.score(model, tokenizer, [(pair.messages, pair.rejected) for pair in pairs])
    return pair_accuracy(chosen, rejected)


def _hard_pairs(sampled: Sequence[Candidates], scored: Sequence[Mapping[str, float]], kind: Kind) -> float:
    wins = []
    for one, logits in zip(sampled, scored, strict=True):
        good = {text: one.prompt.is_good(text, kind) for text in logits}
        best = [max((logits[text] for text in logits if good[text] is flag), default=None) for flag in (True, False)]
        if best[0] is not None and best[1] is not None:
            wins.append(best[0] > best[1])
    return share(wins)


def _by_category(rows: Sequence[Ranked]) -> dict[str, tuple[float, float]]:
    groups: defaultdict[str, list[Ranked]] = defaultdict(list)
    for row in rows:
        groups[row.prompt.category].append(row)
    return {
        name: tuple(fmean(row.best_of(size, lambda v: not v.correct) for row in members) for size in (1, CATEGORIES_AT))  # type: ignore[misc]
        for name, members in sorted(groups.items())
    }
