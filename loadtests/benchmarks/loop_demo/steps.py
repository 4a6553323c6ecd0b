"""The loop's steps, each once: what a step has made stays in the work folder, and the same command goes on after it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx

from winnow.loadtests.benchmarks.demo_training.rounds import CARD, FINISHED, TrainingFailed, rm_train
from winnow.loadtests.benchmarks.loop_demo import asking, first
from winnow.loadtests.benchmarks.loop_demo.annotator import ROUTES, ScriptedAnnotator, Work, post
from winnow.loadtests.benchmarks.loop_demo.asking import CANDIDATES, CONCURRENCY, Measured
from winnow.loadtests.benchmarks.loop_demo.page import Results
from winnow.loadtests.benchmarks.loop_demo.shuffling import shuffled
from winnow.loadtests.benchmarks.processes import end_with_parent
from winnow.loadtests.benchmarks.winnow_process import DEMO_MODELS, winnow_server
from winnow.models import demo
from winnow.models.demo.world import DemoPrompt, held_out_prompts, prompts

_log = logging.getLogger(__name__)

T = TypeVar("T", Work, Measured)
POLICIES = ("top", "random")
"""The batches' pair policies; the last one's batches repeat, until there are enough choices."""
ASKED_SEED = 20
"""The stream of the recorded prompts; the demo models were trained on the streams 0 to 3, and from 100 on."""
DEVELOPMENT = 400, 31
"""Number and stream of the held-out prompts that first model, pair policies and recipe were chosen on."""
LOG_TAIL = 1_000
SOME_BAD = 3
"""Exit status of a command that left out some rows."""
FIRST_RECIPE = {"learning-rate": 1e-3, "batch": 64, "micro-batch": 64, "label-smoothing": 0.05, "held-out": 0.05}
LATER_RATE = 3e-4
LATER_RECIPE = {
    "learning-rate": LATER_RATE, "epochs": 3, "batch": 32, "micro-batch": 32, "label-smoothing": 0.15, "held-out": 0.05,
}  # fmt: skip
"""The recipe of the training on choices, and of the control's; found on other prompts than those of the page."""
MODELS = ("before", "after", "control")


class StepFailed(Exception):
    """A command of the loop ended with an error; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a loop, and its seed. Files are kept in `work`."""

    work: Path
    comparisons: int
    asked: int
    choices: int
    held_out: int
    seed: int


@dataclass(frozen=True)
class Loop:
    """One loop, from the first model to the measured ones."""

    plan: Plan

    def run(self) -> Results:
        """Run every step that is not done, and return the figures.

        Raises:
            TrainingFailed, StepFailed: a command ended with an error.
            ServerFailed, WinnowClientError, AnnotationRefused: a server failed.
        """
        self.plan.work.mkdir(parents=True, exist_ok=True)
        self.train_first()
        work = self.collect()
        rows = self.export()
        self.train_on(rows)
        self.calibrate(rows)
        measured = {name: self.measure(name) for name in MODELS}
        plan = self.plan
        return Results(work, measured, plan.comparisons, plan.asked, len(read_rows(rows)), LATER_RATE, plan.seed)

    def model(self, name: str) -> Path:
        """Return the folder of a helpfulness model: before, after or control."""
        return self.plan.work / name

    def train_first(self) -> None:
        """Train the first helpfulness model, on written comparisons, unless there is one."""
        data = self.plan.work / "written.jsonl"
        write_rows(data, [one.row() for one in islice(first.comparisons(self.plan.seed), self.plan.comparisons)])
        self._train("before", data, demo.weights("policy"), FIRST_RECIPE)

    def collect(self) -> Work:
        """Serve the first model with recording on, ask, and let the annotator choose; interrupted, it begins anew."""
        done = self.plan.work / "annotated.json"
        if done.exists():
            return Work(**json.loads(done.read_text(encoding="utf-8")))
        for old in self.plan.work.glob("winnow.db*"):
            old.unlink()
        asked = list(islice(prompts(ASKED_SEED + self.plan.seed, held_out=False), self.plan.asked))
        with winnow_server(self._flags("before", "--store", str(self.store), "--record", "all"), self._log) as url:
            asyncio.run(asking.record(url, asked, self.plan.seed))
            work = annotate(url, ScriptedAnnotator(asked, self.plan.seed), self.plan.choices, self.plan.seed)
        return _kept(done, work)

    @property
    def store(self) -> Path:
        """The file of recorded answers and annotations."""
        return self.plan.work / "winnow.db"

    @property
    def _log(self) -> Path:
        return self.plan.work / "serve.log"

    def export(self) -> Path:
        """Export the annotations, and write the control's rows beside them; return the file of the annotations."""
        folder = self.plan.work / "export"
        rows = folder / "annotations.jsonl"
        if not rows.exists():
            run_winnow("export", f"store:{self.store}", "--format", "annotations", "--out", str(folder))
        write_rows(self.plan.work / "shuffled.jsonl", shuffled(read_rows(rows), self.plan.seed))
        return rows

    def train_on(self, rows: Path) -> None:
        """Train the first model further: on the choices, and as a control on shuffled ones."""
        data = {"after": rows, "control": self.plan.work / "shuffled.jsonl"}
        with ThreadPoolExecutor(len(data)) as pool:
            for training in [
                pool.submit(self._train, name, file, self.model("before"), LATER_RECIPE) for name, file in data.items()
            ]:
                training.result()

    def calibrate(self, rows: Path) -> None:
        """Calibrate the demo's safety model on the annotator's safety labels; its weights stay as they are."""
        if not self._card.exists():
            run_winnow("rm", "calibrate", str(demo.weights("safety-rm")), "--data", str(rows), "--out", str(self._card))

    @property
    def _card(self) -> Path:
        return self.plan.work / "safety-card.toml"

    def measure(self, name: str) -> Measured:
        """Serve a model, ask held-out prompts, and return the figures of its answers.

        Both models that were trained on annotations are served with the calibration of the same annotations.
        """
        done = self.plan.work / f"measured-{name}.json"
        if done.exists():
            return Measured(**json.loads(done.read_text(encoding="utf-8")))
        card = () if name == "before" else ("--safety-card", str(self._card))
        with winnow_server(self._flags(name, *card), self._log) as url:
            found = asyncio.run(asking.measure(url, exam(self.plan), self.plan.seed))
        return _kept(done, found)

    def _flags(self, name: str, *more: str) -> tuple[str, ...]:
        in_flight = str(CONCURRENCY * CANDIDATES)
        return (*DEMO_MODELS, "--helpfulness-rm", str(self.model(name)), "--max-candidates-in-flight", in_flight,
                "--max-queue-seconds", "600", *more)  # fmt: skip

    def _train(self, name: str, data: Path, init: Path, recipe: Mapping[str, object]) -> None:
        card = self.plan.work / f"{name}-card.toml"  # two are trained at once
        card.write_text(CARD.format(kind=f"loop-{name}"), encoding="utf-8")
        _log.info("winnow rm train %s: its progress is in %s.log", name, self.model(name))
        options = {
            "data": data, "init": init, "kind": "helpfulness", "out": self.model(name), "card": card,
            "seed": self.plan.seed, "dtype": "bfloat16", **recipe,
        }  # fmt: skip
        try:
            rm_train(options)
        except TrainingFailed:
            if not (self.model(name) / FINISHED).exists():  # a status of its own says that some rows were left out
                raise


def exam(plan: Plan) -> list[DemoPrompt]:
    """Return the held-out prompts that the models are measured on; none is one that the recipe was chosen on."""
    seen = {one.messages for one in held_out_prompts(*DEVELOPMENT)}
    new = (one for one in prompts(plan.seed, held_out=True) if one.messages not in seen)
    return list(islice(new, plan.held_out))


def annotate(url: str, annotator: ScriptedAnnotator, wanted: int, seed: int) -> Work:
    """Let the annotator work through batches, until `wanted` pairs are annotated or no batch can be made.

    Raises:
        AnnotationRefused: a request was not answered with 200.
    """
    total, number = Work(0, 0, 0, 0), 0
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        while total.annotated < wanted:
            asked = {
                "name": f"Week {number + 1}",
                "policy": POLICIES[min(number, len(POLICIES) - 1)],
                "pairs": wanted,
                "seed": seed + number,
            }
            batch = post(http, f"{ROUTES}/batches", asked)["id"]
            done = annotator.work(http, batch, wanted - total.annotated)
            post(http, f"{ROUTES}/batches/{batch}/close", {})
            total = Work(*(mine + its for mine, its in zip(asdict(total).values(), asdict(done).values(), strict=True)))
            number += 1
    return total


def run_winnow(*arguments: str) -> None:
    """Run a `winnow` command to its end.

    Raises:
        StepFailed: its exit status is not 0.
    """
    done = subprocess.run(  # noqa: S603, our own command
        [str(Path(sys.executable).with_name("winnow")), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ, check=False, preexec_fn=end_with_parent,
    )  # fmt: skip
    if done.returncode not in (0, SOME_BAD):
        last = done.stdout.decode(errors="replace")[-LOG_TAIL:]
        raise StepFailed(f"winnow {arguments[0]} ended with status {done.returncode}; the same command goes on\n{last}")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON Lines."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    file.write_text(text, encoding="utf-8")


def _kept(file: Path, found: T) -> T:
    partial = file.with_suffix(".partial")
    partial.write_text(f"{json.dumps(asdict(found))}\n", encoding="utf-8")
    partial.replace(file)
    return found
