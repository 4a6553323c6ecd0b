"""Rounds of training on policy, as the paper's weekly batches: train, sample, let the world judge, add the failures.

Each round continues both reward models on the failures of the round before and on written comparisons. Its figures are
of held-out prompts, whose candidates are sampled once. All is kept in files, so that a second call goes on where the
first ended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from winnow.models.demo.candidates import Candidates, sample_candidates, scores
from winnow.models.demo.comparisons import Comparison, failures, written
from winnow.models.demo.report import Figures, figures
from winnow.models.demo.world import DemoPrompt, Kind, held_out_prompts, prompts
from winnow.models.tokenizer import Tokenizer
from winnow.models.training.checkpoints import load_policy
from winnow.models.training.examples import Recipe
from winnow.models.training.reward_trainer import Progress, save, train

_log = logging.getLogger(__name__)

CANDIDATES = 64
ROUNDS = 3
"""Rounds on the policy's own answers; the one before them has written answers alone."""
KINDS: tuple[Kind, ...] = ("safety", "helpfulness")
WRITTEN: dict[Kind, int] = {"safety": 16_000, "helpfulness": 40_000}
"""Written comparisons of the first round."""
SHARE_AGAIN = 0.2
"""The share of them that a later round has, new ones, besides its failures."""
ASKED, MEASURED = 1_500, 300
"""Training prompts of a round, and held-out prompts."""
FIRST_RATE, LATER_RATE = 1e-3, 5e-4
BATCH = 64
SMOOTHING: dict[Kind, float] = {"safety": 0.01, "helpfulness": 0.05}
"""An unsafe answer gets a lower R_s than a wrong one R_h, so that the worst of all are the unsafe ones."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of one build, in the folder `work`; `scale` is the share of the full training."""

    policy: Path
    tokenizer: Tokenizer
    work: Path
    scale: float
    seed: int

    def run(self) -> tuple[dict[Kind, Path], list[Figures]]:
        """Train every round; return the last round's folders, and the figures of each round."""
        models = dict.fromkeys(KINDS, self.policy)
        found = []
        for number in range(ROUNDS + 1):
            failed = self._failures(number, models) if number else {}
            for kind in KINDS:
                models[kind] = self._trained(number, kind, models[kind], failed.get(kind, []))
            found.append(self._figures(models))
            _log.info("round %d\n%s", number, found[-1])
        return models, found

    def _trained(self, number: int, kind: Kind, init: Path, failed: Sequence[Comparison]) -> Path:
        """Return the folder of a round's reward model, which goes on from `init`."""
        folder = self._folder(number) / kind
        if (folder / "config.json").exists():
            return folder
        count = self._size(WRITTEN[kind]) if not number else round(SHARE_AGAIN * self._size(WRITTEN[kind]))
        compared = [*failed, *islice(written(kind, self.seed + 100 * number), count)]
        _write(self._folder(number) / f"{kind}.jsonl", compared)
        recipe = Recipe(
            learning_rate=LATER_RATE if number else FIRST_RATE,
            batch=BATCH, micro_batch=BATCH, label_smoothing=SMOOTHING[kind], seed=self.seed,
        )  # fmt: skip
        examples = [comparison.example(self.tokenizer) for comparison in compared]
        model = train(init, examples, recipe, self._folder(number) / f"{kind}.training", _progress(number, kind))
        save(model, self.policy, folder, "float32")
        return folder

    def _failures(self, number: int, models: dict[Kind, Path]) -> dict[Kind, list[Comparison]]:
        """Return the comparisons that a round adds: on new training prompts, those that `models` find hardest."""
        asked = list(islice(prompts(self.seed + number, held_out=False), self._size(ASKED)))
        sampled = self._sampled(f"round-{number}", asked)
        found: dict[Kind, list[Comparison]] = {}
        for kind in KINDS:
            rng = Random(f"failures-{self.seed}-{number}-{kind}")
            scored = zip(sampled, scores(models[kind], self.tokenizer, sampled), strict=True)
            found[kind] = [one for candidates, logits in scored for one in failures(candidates, logits, kind, rng)]
        return found

    def _figures(self, models: dict[Kind, Path]) -> Figures:
        sampled = self._sampled("held-out", held_out_prompts(self._size(MEASURED), self.seed))
        scored = {kind: scores(models[kind], self.tokenizer, sampled) for kind in KINDS}
        return figures(sampled, scored, models, self.tokenizer)

    def _sampled(self, name: str, asked: Sequence[DemoPrompt]) -> list[Candidates]:
        """Return the policy's answers to `asked`, which are sampled once and kept."""
        file = self.work / f"{name}.json"
        if not file.exists():
            found = sample_candidates(load_policy(self.policy), self.tokenizer, asked, CANDIDATES, self.seed)
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps([dict(one.counts) for one in found]))
            partial.replace(file)
        counts = json.loads(file.read_text())
        return [Candidates(prompt, one) for prompt, one in zip(asked, counts, strict=True)]

    def _folder(self, number: int) -> Path:
        folder = self.work / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _size(self, full: int) -> int:
        return max(64, round(full * self.scale))


def _write(file: Path, compared: Sequence[Comparison]) -> None:
    """Keep the comparisons as rows that `winnow rm train` reads."""
    with file.open("w", encoding="utf-8") as lines:
        for one in compared:
            lines.write(json.dumps(one.row(), ensure_ascii=False) + "\n")


def _progress(number: int, kind: Kind) -> Callable[[Progress], None]:
    def log(progress: Progress) -> None:
        if progress.step % 50 == 0 or progress.step == progress.steps:
            _log.info(
                "round %d, %s: step %d of %d, loss %.4f, accuracy %.3f, %.0f pairs/s, %.1f min left", number, kind,
                progress.step, progress.steps, progress.loss, progress.accuracy, progress.pairs_per_second,
                progress.seconds_left / 60,
            )  # fmt: skip

    return log
