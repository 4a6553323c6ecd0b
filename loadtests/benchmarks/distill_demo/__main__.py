"""`make distill-demo`: `winnow distill` end to end on the demo world, and the benefit of training on its output.

Prompts of the training side go through `winnow distill`. The demo policy is fine-tuned on the winners and, as a
control, on a random candidate of each prompt; both are judged on held-out prompts. Writes a table and a plot.
The two tuned policies stay in the work folder and can be served by `winnow serve --policy`. Takes ten to
fifteen minutes on two cores.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer

from winnow.loadtests.benchmarks.winnow_process import DistillFailed, distill, write_prompts
from winnow.models import demo
from winnow.models.demo.world import DemoPrompt, held_out_prompts
from winnow.models.demo.world import prompts as stream
from winnow.models.engines.environment import COMMON, PASSIVE

if TYPE_CHECKING:
    from winnow.loadtests.benchmarks.distill_demo.measures import Answers
    from winnow.loadtests.benchmarks.distill_demo.page import Page
    from winnow.models.training.sft import Example, Schedule

PROMPT_SEED = 10
"""The demo models were trained on the streams 0 to 3, and on those from 100 on, of the same side."""
ENVIRONMENT = {**COMMON, **PASSIVE, "HF_HUB_OFFLINE": "1"}
"""Set before torch and the hub's library are imported, which read it then."""
ORIGINAL, CONTROL, WINNERS = "original", "tuned on random candidates", "tuned on winners"


def training_prompts(count: int) -> list[DemoPrompt]:
    """Return `count` prompts of the training side; none is held out, or continues one that is."""
    return list(islice(stream(PROMPT_SEED, held_out=False), count))


def distilled(prompts: Sequence[DemoPrompt], candidates: int, seed: int, work: Path) -> Path:
    """Run `winnow distill` on the prompts, or resume it; returns the folder of its exports.

    Raises:
        DistillFailed: it ended with an error.
    """
    write_prompts(work / "prompts.jsonl", prompts)
    flags = ["-k", str(candidates), "--temperature", "1", "--seed", str(seed)]
    distill(work / "prompts.jsonl", work / "run", [*flags, "--format", "prompt-completion,candidates"])
    return work / "run" / "export"


def winners(folder: Path) -> list[Example]:
    """Return the best answer to each prompt, in the input's order, from the exports in `folder`."""
    with (folder / "prompt_completion.jsonl").open(encoding="utf-8") as file:
        rows = map(json.loads, file)
        return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]


def control(folder: Path, seed: int) -> list[Example]:
    """Return a random candidate of each prompt, in the input's order: the winners without the choice."""
    from pyarrow import parquet

    answers: dict[int, list[Example]] = defaultdict(list)
    columns = ["line", "index", "prompt", "text"]
    rows = parquet.read_table(folder / "candidates.parquet", columns=columns).to_pylist()
    for row in sorted(rows, key=lambda row: (row["line"], row["index"])):
        completion = [{"role": "assistant", "content": row["text"]}]
        answers[row["line"]].append({"prompt": row["prompt"], "completion": completion})
    return [Random(f"control-{seed}-{line}").choice(own) for line, own in answers.items()]


def build(work: Path, prompts: int, held_out: int, candidates: int, seed: int) -> Page:
    """Distil, tune twice, and measure.

    Raises:
        DistillFailed: `winnow distill` ended with an error.
    """
    from winnow.loadtests.benchmarks.distill_demo.measures import best, judged, sampled
    from winnow.loadtests.benchmarks.distill_demo.page import Page
    from winnow.models.training.sft import Schedule, fine_tune

    lessons = training_prompts(prompts)
    export = distilled(lessons, candidates, seed, work)
    learned = {CONTROL: control(export, seed), WINNERS: winners(export)}
    schedule = Schedule(seed=seed)
    folders = {ORIGINAL: demo.weights("policy"), CONTROL: work / "control", WINNERS: work / "winners"}
    for name, examples in learned.items():
        typer.echo(f"fine-tuning: {name}")
        fine_tune(examples, schedule, folders[ORIGINAL], export / "chat_template.jinja", folders[name])

    exam = held_out_prompts(held_out, seed)
    answers: dict[str, Answers] = {}
    for name, folder in folders.items():
        typer.echo(f"sampling: {name}")
        answers[name] = sampled(folder, exam, candidates, seed)
    original, control_, tuned = (judged(name, exam, answers[name]) for name in folders)
    return Page(
        intro=_intro(prompts, candidates, schedule),
        samples=candidates,
        lessons=[
            judged(name.removeprefix("tuned on "), lessons, [[row["completion"][0]["content"]] for row in rows])
            for name, rows in learned.items()
        ],
        original=original,
        control=control_,
        winners=tuned,
        best=judged(f"{ORIGINAL}, best of {candidates}", exam, best(exam, answers[ORIGINAL])),
    )


def _intro(prompts: int, candidates: int, schedule: Schedule) -> str:
    """Return the method, as the page describes it."""
    return f"""\
Written by `make distill-demo`: `winnow distill` drew {candidates} candidates for each of {prompts:,} prompts of
the demo world's training side, at temperature 1. Two copies of the demo policy were fine-tuned by TRL's
SFTTrainer, with loss on the answer alone: one on the winner of each prompt, and as a control one on a random
candidate of each prompt. Both had {schedule.epochs} epochs in batches of {schedule.batch}, AdamW with peak rate
{schedule.rate:g}, seed {schedule.seed}."""


def main(
    work: Annotated[
        Path, typer.Option(help="Folder of the run and the tuned policies; the same command resumes the run.")
    ] = Path("build/distill-demo"),
    out: Annotated[Path, typer.Option(help="Folder for distill-demo.md and distill-demo.png.")] = Path("docs"),
    prompts: Annotated[int, typer.Option(min=1, help="Number of training prompts to distil.")] = 2_000,
    held_out: Annotated[int, typer.Option(min=1, help="Number of held-out prompts to judge on.")] = 600,
    candidates: Annotated[
        int, typer.Option("--candidates", "-k", min=2, help="K, and the samples of each held-out prompt.")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of candidates, control, training and held-out prompts.")] = 0,
) -> None:
    """Distil the best of K into the demo policy, measure the tuned policy, and write a table and a plot."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    work.mkdir(parents=True, exist_ok=True)
    try:
        page = build(work, prompts, held_out, candidates, seed)
    except DistillFailed as error:
        sys.exit(f"distill-demo: {error}")
    publish(page, out)


def publish(page: Page, out: Path) -> None:
    """Write the page and its plot to `out`, and print it."""
    from winnow.loadtests.benchmarks.distill_demo.page import markdown, plot

    out.mkdir(parents=True, exist_ok=True)
    text = markdown(page)
    (out / "distill-demo.md").write_text(text, encoding="utf-8")
    plot(page, out / "distill-demo.png")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
