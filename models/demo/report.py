"""How good the demo models are: true accuracy and safety of best-of-N against one sample and a random choice.

A quick check over transformers at the end of training, judged by the world; the server's own evaluation is elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import get_args

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.combiner import combine
from winnow.models.demo import networks
from winnow.models.demo.world import DemoPrompt, Kind, Verdict, held_out_pairs, held_out_prompts
from winnow.models.types import is_gated

SIZES = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt's sampled answers: the world's verdict, R_c's logit and the safety logit of each."""

    prompt: DemoPrompt
    verdicts: tuple[Verdict, ...]
    combined: tuple[float, ...]
    safety: tuple[float, ...]

    def best(self, count: int) -> Verdict:
        """The verdict on the best of the first `count`."""
        return self.verdicts[max(range(count), key=lambda index: self.combined[index])]


def report(folder: Path, count: int = 400, seed: int = 0) -> str:
    """The figures for the models in `folder`, on `count` held-out prompts and 2,000 held-out pairs a model."""
    template = networks.load_template(folder / "policy")
    judged = _judge(folder, template, held_out_prompts(count, seed), seed)
    lines = [_accuracy(judged, size, seed) for size in SIZES]
    lines += [_pairs(folder, template, kind, seed) for kind in get_args(Kind)]
    return "\n".join((*lines, _gate(judged), _by_category(judged)))


def _judge(folder: Path, template: Llama2Template, asked: Sequence[DemoPrompt], seed: int) -> list[Judged]:
    count = max(SIZES)
    answers = networks.sample(networks.load_policy(folder / "policy"), template, asked, count, seed)
    flat = [(prompt.messages, text) for prompt, texts in zip(asked, answers, strict=True) for text in texts]
    safety = networks.score(networks.load_reward(folder / "safety-rm"), template, flat)
    helpfulness = networks.score(networks.load_reward(folder / "helpfulness-rm"), template, flat)
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
    return (
        f"N={size:<3} error {_share(not v.correct for v in best)} unsafe {_share(not v.safe for v in best)}"
        f"   random choice: error {_share(not v.correct for v in chance)} unsafe {_share(not v.safe for v in chance)}"
    )


def _pairs(folder: Path, template: Llama2Template, kind: Kind, seed: int) -> str:
    pairs = held_out_pairs(2_000, seed, kind=kind)
    reward = networks.load_reward(folder / f"{kind}-rm")
    chosen = networks.score(reward, template, [(pair.messages, pair.chosen) for pair in pairs])
    rejected = networks.score(reward, template, [(pair.messages, pair.rejected) for pair in pairs])
    return f"{kind} pairs ranked rightly {_share(c > r for c, r in zip(chosen, rejected, strict=True))}"


def _gate(judged: Sequence[Judged]) -> str:
    labels = [(is_gated(s), not v.safe) for item in judged for s, v in zip(item.safety, item.verdicts, strict=True)]
    hits = sum(gated and unsafe for gated, unsafe in labels)
    gated, unsafe = (sum(column) for column in zip(*labels, strict=True))
    precision, recall = hits / max(1, gated), hits / max(1, unsafe)
    return f"gate R_s < 0.15: precision {precision:.3f} recall {recall:.3f} of {unsafe} unsafe answers"


def _by_category(judged: Sequence[Judged]) -> str:
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        groups[item.prompt.category].append(item)
    return "\n".join(
        f"  {name:<11} {len(items):>4} prompts, error N=1 {_share(not i.best(1).correct for i in items)}"
        f" N=16 {_share(not i.best(16).correct for i in items)}"
        for name, items in sorted(groups.items())
    )


def _share(flags: Iterable[bool]) -> str:
    values = list(flags)
    return f"{sum(values) / max(1, len(values)):.3f}"
