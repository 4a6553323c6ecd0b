"""Rounds of training on policy, as the paper's weekly batches: train, sample, let the world judge, add the failures.

Each round continues both reward models by `winnow rm train`, on the failures of the round before and on written
comparisons. Its figures are of held-out prompts, whose candidates are sampled once. All is kept in files, so that a
second call goes on where the first ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch

from winnow.loadtests.benchmarks.processes import end_with_parent
from winnow.models.cards.card import FILE
from winnow.models.demo.candidates import Candidates, sample_candidates, scores
from winnow.models.demo.comparisons import LEAST, Comparison, failures, twins, written
from winnow.models.demo.report import Figures, figures
from winnow.models.demo.world import DemoPrompt, Kind, held_out_prompts, prompts
from winnow.models.tokenizer import Tokenizer
from winnow.models.training.checkpoints import load_policy

_log = logging.getLogger(__name__)

CANDIDATES = 64
ROUNDS = 8
"""Rounds on the policy's own answers; the one before them has written answers alone."""
KINDS: tuple[Kind, ...] = ("safety", "helpfulness")
WRITTEN: dict[Kind, int] = {"safety": 32_000, "helpfulness": 80_000}
"""Written comparisons of the first round."""
SHARE_AGAIN = 0.25
"""The share of them that a later round has besides its failures: new ones, or for helpfulness near twins."""
TWIN_ROUNDS = range(1, 6)
"""Rounds with near twins; after them come written answers of all kinds again, so that nothing is unlearnt."""
ASKED, MEASURED = 1_000, 300
"""Training prompts of a round, and held-out prompts."""
SCORED: dict[Kind, int] = {"safety": 300, "helpfulness": ASKED}
"""Training prompts whose candidates each model scores; the safety model hardly fails any more."""
LEAST_WEIGHT = 0.5
"""The weight of a category without failures, in failures a prompt."""
FIRST_RATE, LATER_RATE = 1e-3, 5e-4
BATCH = 64
HELD_OUT: dict[Kind, float] = {"safety": 0.5, "helpfulness": 0.02}
"""The share of the prompts that `winnow rm train` measures and calibrates on. Where scores separate the labels, Platt's
method makes the least R about 1 / n: many for safety, so that an unsafe answer's R_s lies under a wrong one's R_h."""
SMOOTHING: dict[Kind, float] = {"safety": 0.01, "helpfulness": 0.05}
"""The share of the labels that are taken for wrong: it keeps logits in a range."""
CARD = 'name = "winnow-demo-{kind}"\ntemplate = "llama2"\nread_at = "last"\n'
FINISHED = "training.json"
"""The file that `winnow rm train` writes last."""
LOG_TAIL = 1_000
THREADS = max(1, (os.cpu_count() or 1) // len(KINDS))
"""Threads of each of the processes that run at once: threads that wait for each other on shared cores crawl."""


class TrainingFailed(Exception):
    """`winnow rm train` ended with an error; the message has the end of its log."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of one build, in the folder `work`; `scale` is the share of the full training."""

    policy: Path
    tokenizer: Tokenizer
    work: Path
    scale: float
    seed: int

    def run(self) -> tuple[dict[Kind, Path], list[Figures]]:
        """Train every round; return the last round's folders, and the figures of each round.

        Raises:
            TrainingFailed: a command ended with an error.
        """
        for number in range(ROUNDS + 1):
            with ThreadPoolExecutor(len(KINDS)) as pool:
                trainings = [pool.submit(rm_train, order) for order in self._orders(number)]
                if trainings:
                    with torch_threads(THREADS):
                        self._meanwhile(number)
                for training in trainings:
                    training.result()
        return self._models(ROUNDS), [self._figures(number) for number in range(ROUNDS + 1)]

    def _meanwhile(self, number: int) -> None:
        """Do what need not wait for a round: sample the next one, as the policy stays, and measure those before."""
        if number < ROUNDS:
            self._candidates(number + 1)
        for earlier in range(number):
            self._figures(earlier)

    def _models(self, number: int) -> dict[Kind, Path]:
        return {kind: self._folder(number) / f"{kind}-rm" for kind in KINDS}

    def _orders(self, number: int) -> list[dict[str, object]]:
        """Write a round's data; return the options of its trainings, none if they are finished."""
        folder = self._folder(number)
        if all((trained / FINISHED).exists() for trained in self._models(number).values()):
            return []
        folder.mkdir(parents=True, exist_ok=True)
        models = self._models(number - 1) if number else dict.fromkeys(KINDS, self.policy)
        compared = self._failures(number, models) if number else {kind: [] for kind in KINDS}
        for kind in KINDS:
            count = self.size(WRITTEN[kind] * (SHARE_AGAIN if number else 1.0))
            stream = written(kind, self.seed + 100 * number)
            if number in TWIN_ROUNDS and kind == "helpfulness":
                stream = twins(weak_spots(compared[kind]), self.seed + 100 * number)
            compared[kind] += islice(stream, count)
        _log.info("round %d: winnow rm train writes its progress to %s/*.log", number, folder)
        return [self._order(number, kind, models[kind], compared[kind]) for kind in KINDS]

    def _order(self, number: int, kind: Kind, init: Path, compared: Sequence[Comparison]) -> dict[str, object]:
        """Write a round's data; return the options of its training, which goes on from `init`."""
        out = self._folder(number) / f"{kind}-rm"
        data, card = out.with_suffix(".jsonl"), out.with_suffix(".toml")
        rows = (json.dumps(one.row(), ensure_ascii=False) for one in compared)
        data.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        card.write_text(CARD.format(kind=kind), encoding="utf-8")
        return {
            "data": data, "init": init, "kind": kind, "out": out, "card": card, "seed": self.seed, "batch": BATCH,
            "micro-batch": BATCH, "learning-rate": LATER_RATE if number else FIRST_RATE,
            "label-smoothing": SMOOTHING[kind], "held-out": HELD_OUT[kind], "dtype": "bfloat16",
        }  # fmt: skip

    def _failures(self, number: int, models: Mapping[Kind, Path]) -> dict[Kind, list[Comparison]]:
        """Return the comparisons that a round adds: on new training prompts, those that `models` find hardest."""
        asked = self._candidates(number)
        found: dict[Kind, list[Comparison]] = {}
        for kind in KINDS:
            rng = Random(f"failures-{self.seed}-{number}-{kind}")
            sampled = asked[: self.size(SCORED[kind])]
            scored = zip(sampled, scores(models[kind], self.tokenizer, sampled), strict=True)
            found[kind] = [one for candidates, logits in scored for one in failures(candidates, logits, kind, rng)]
        return found

    def _candidates(self, number: int) -> list[Candidates]:
        """Return the policy's answers to the training prompts of a round."""
        asked = list(islice(prompts(self.seed + number, held_out=False), self.size(ASKED)))
        return self._sampled(self._folder(number) / "candidates.json", asked)

    def _figures(self, number: int) -> Figures:
        """Return the figures of a round, which are found once and kept."""
        file = self._folder(number) / "figures.json"
        if not file.exists():
            sampled = self._sampled(self.work / "held-out.json", held_out_prompts(self.size(MEASURED), self.seed))
            found = figures(sampled, self._models(number), self.tokenizer)
            _log.info("after round %d\n%s", number, found)
            file.write_text(f"{json.dumps(found.as_dict(), indent=1)}\n", encoding="utf-8")
        return Figures(**json.loads(file.read_text(encoding="utf-8")))

    def _sampled(self, file: Path, asked: Sequence[DemoPrompt]) -> list[Candidates]:
        """Return the policy's answers to `asked`, which are sampled once and kept in `file`."""
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            found = sample_candidates(load_policy(self.policy), self.tokenizer, asked, CANDIDATES, self.seed)
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps([dict(one.counts) for one in found]), encoding="utf-8")
            partial.replace(file)
        counts = json.loads(file.read_text(encoding="utf-8"))
        return [Candidates(prompt, one) for prompt, one in zip(asked, counts, strict=True)]

    def _folder(self, number: int) -> Path:
        return self.work / f"round-{number}"

    def size(self, full: float) -> int:
        """Return the number to use of a thing of which the full training uses `full`."""
        return max(64, round(full * self.scale))


def weak_spots(failed: Sequence[Comparison]) -> dict[str, float]:
    """Return the weights of the categories in a round: their failures a prompt, the most being 1."""
    found = Counter(one.prompt.category for one in failed)
    asked = Counter(prompt.category for prompt in {id(one.prompt): one.prompt for one in failed}.values())
    rates = {category: found[category] / asked[category] - LEAST + LEAST_WEIGHT for category in asked}
    return {category: rate / max(rates.values()) for category, rate in rates.items()}


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rm_train(options: Mapping[str, object]) -> None:
    """Run `winnow rm train`, or go on with it, on half of the cores; its progress goes to a log beside its folder.

    Raises:
        TrainingFailed: its exit status is not 0.
    """
    out = Path(str(options["out"]))
    if (out / FINISHED).exists():
        return
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    log = out.with_suffix(".log")
    with log.open("ab") as file:
        status = subprocess.run(  # noqa: S603, our own command
            [str(Path(sys.executable).with_name("winnow")), "rm", "train", *flags], stdout=file,
            stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)}, check=False,
            preexec_fn=end_with_parent,
        ).returncode  # fmt: skip
    if status:
        last = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
        raise TrainingFailed(f"winnow rm train ended with status {status}; the same command goes on with it\n{last}")


def publish(trained: Path, out: Path, name: str = "") -> None:
    """Copy a model's own files to `out`, all but the report of its training; its card gets `name`."""
    out.mkdir(parents=True, exist_ok=True)
    for file in trained.iterdir():
        if file.is_file() and not file.name.startswith(("training.", ".")):
            shutil.copy(file, out / file.name)
    if name:
        card = (out / FILE).read_text(encoding="utf-8")
        (out / FILE).write_text(card.replace(f'name = "{trained.name}"', f'name = "{name}"', 1), encoding="utf-8")
