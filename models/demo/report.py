"""The report on the demo models: true accuracy and safety of best-of-N, one sample and a random choice.

A quick check over transformers at the end of training, judged by the world. `make demo-eval` measures
the served models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import get_args

from winnow.models.combiner import combine
from winnow.models.demo import networks
from winnow.models.demo.world import DemoPrompt, Kind, Verdict, held_out_pairs, held_out_prompts
from winnow.models.tokenizer import Tokenizer
from winnow.models.training.checkpoints import load_policy, load_reward_model
from winnow.models.training.evaluation import pair_accuracy, precision_and_recall, share
from winnow.models.types import SAFETY_THRESHOLD, is_gated

SIZES = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt's sampled answers: for each the world's verdict, the logit of R_c and the safety logit."""

    prompt: DemoPrompt
    verdicts: tuple[Verdict, ...]
    combined: tuple[float, ...]
    safety: tuple[float, ...]

    def best(self, count: int) -> Verdict:
        """Return the verdict on the best of the first `count`."""
        return self.verdicts[max(range(count), key=lambda index: self.combined[index])]


def report(folder: Path, count: int = 400, seed: int = 0) -> str:
    """Return the figures of the models in `folder`, on `count` held-out prompts and 2,000 pairs each."""
    tokenizer = networks.load_tokenizer(folder / "policy")
    judged = _judge(folder, tokenizer, held_out_prompts(count, seed), seed)
    lines = [_accuracy(judged, size, seed) for size in SIZES]
    lines += [_pairs(folder, tokenizer, kind, seed) for kind in get_args(Kind)]
    return "\n".join((*lines, _threshold(judged), _by_category(judged)))


def _judge(folder: Path, tokenizer: Tokenizer, asked: Sequence[DemoPrompt], seed: int) -> list[Judged]:
    count = max(SIZES)
    answers = networks.sample(load_policy(folder / "policy"), tokenizer, asked, count, seed)
    flat = [(prompt.messages, text) for prompt, texts in zip(asked, answers, strict=True) for text in texts]
    safety = networks.score(load_reward_model(folder / "safety-rm"), tokenizer, flat)
    helpfulness = networks.score(load_reward_model(folder / "helpfulness-rm"), tokenizer, flat)
    judged = []
    for index, (prompt, texts) in enumerate(zip(asked, answers, strict=True)):
        part = slice(index * count, (index + 1) * count)
        scores = zip(safety[part], helpfulness[part], strict=True)
        combined = tuple(combine(prompt.is_safety, s, h).combined_logit for s, h in scores)
        judged.append(Judged(prompt, tuple(map(prompt.judge, texts)), combined, tuple(safety[part])))
    return judged


def _accuracy(judged: Sequence[Judged], size: int, seed: int) -> str:
    rng = Random(seed)
    best = [item.best(size) for item in judged]
    chance = [rng.choice(item.verdicts[:size]) for item in judged]
    return f"N={size:<3} {_rates(best)}   random choice: {_rates(chance)}"


def _rates(verdicts: Sequence[Verdict]) -> str:
    error, unsafe = share(not verdict.correct for verdict in verdicts), share(not verdict.safe for verdict in verdicts)
    return f"error {error:.3f} unsafe {unsafe:.3f}"


def _pairs(folder: Path, tokenizer: Tokenizer, kind: Kind, seed: int) -> str:
    pairs = held_out_pairs(2_000, seed, kind=kind)
    model = load_reward_model(folder / f"{kind}-rm")
    chosen = networks.score(model, tokenizer, [(pair.messages, pair.chosen) for pair in pairs])
    rejected = networks.score(model, tokenizer, [(pair.messages, pair.rejected) for pair in pairs])
    return f"{kind} pairs ranked correctly {pair_accuracy(chosen, rejected):.3f}"


def _threshold(judged: Sequence[Judged]) -> str:
    gated = [is_gated(logit) for item in judged for logit in item.safety]
    unsafe = [not verdict.safe for item in judged for verdict in item.verdicts]
    precision, recall = precision_and_recall(gated, unsafe)
    figures = f"precision {precision:.3f} recall {recall:.3f} of {sum(unsafe)} unsafe answers"
    return f"R_s < {SAFETY_THRESHOLD}: {figures}"


def _by_category(judged: Sequence[Judged]) -> str:
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        groups[item.prompt.category].append(item)
    return "\n".join(
        f"  {name:<11} {len(items):>4} prompts, error N=1 {share(not item.best(1).correct for item in items):.3f}"
        f" N=16 {share(not item.best(16).correct for item in items):.3f}"
        for name, items in sorted(groups.items())
    )
