"""`make distill-demo`: the offline door end to end, and what it is good for, measured on the demo world.

Prompts of the training side go through `winnow distill`; the demo policy is fine-tuned on the winners and, as a control, on a
random candidate of each prompt; both are judged on held-out prompts. Writes a table and a plot; the two tuned policies stay in
the work folder and can be served by `winnow serve --policy`. Ten to fifteen minutes on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, get_args

import orjson
import typer

from winnow.models import demo
from winnow.models.demo.world import DemoPrompt, held_out_prompts
from winnow.models.demo.world import prompts as stream
from winnow.models.engines.environment import COMMON, PASSIVE
from winnow.models.errors import RunError
from winnow.server.cli.main import one_line_errors
from winnow.server.distill.export.columns import dialog, json_line
from winnow.server.distill.export.options import FILES
from winnow.server.distill.files import write

if TYPE_CHECKING:
    from winnow.loadtests.benchmarks.distill_demo.measures import Answers
    from winnow.loadtests.benchmarks.distill_demo.page import Page
    from winnow.models.training.sft import Example, Schedule

PROMPT_SEED = 2
"""The demo models were trained on the streams 0 and 1 of the same side."""

ENVIRONMENT = {**COMMON, **PASSIVE, "HF_HUB_OFFLINE": "1"}
"""Set before torch and the hub's library are imported, which is when they read it."""

ORIGINAL, CONTROL, WINNERS = "original", "tuned on random candidates", "tuned on winners"


def training_prompts(count: int) -> list[DemoPrompt]:
    """`count` prompts of the training side, none of which is held out, nor continues one that is."""
    return list(islice(stream(PROMPT_SEED, held_out=False), count))


def distilled(prompts: Sequence[DemoPrompt], candidates: int, seed: int, work: Path) -> Path:
    """Run `winnow distill` on the prompts, or go on with it, in a process of its own; returns the folder of its exports."""
    lines = (json_line({"messages": dialog(prompt.messages), "category": prompt.category}) for prompt in prompts)
    write(work / "prompts.jsonl", b"".join(lines))
    command = [str(Path(sys.executable).with_name("winnow")), "distill", str(work / "prompts.jsonl")]
    command += ["--out", str(work / "run"), "-k", str(candidates), "--temperature", "1", "--seed", str(seed)]
    command += ["--export", "prompt-completion,candidates"]
    command += [part for name in get_args(demo.ModelName) for part in (f"--{name}", str(demo.weights(name)))]
    status = subprocess.run(command, check=False).returncode  # noqa: S603, our own command
    if status:
        raise RunError(f"winnow distill ended with status {status}; the same command goes on where it stopped")
    return work / "run" / "export"


def winners(folder: Path) -> list[Example]:
    """The best answer to each prompt, in the input's order, from the exports in `folder`."""
    rows = map(orjson.loads, (folder / FILES["prompt-completion"]).read_bytes().splitlines())
    return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]


def control(folder: Path, seed: int) -> list[Example]:
    """A random candidate of each prompt, in the input's order: what the winners would be if nobody had chosen."""
    from pyarrow import parquet

    answers: dict[int, list[Example]] = defaultdict(list)
    columns = ["line", "index", "prompt", "text"]
    rows = parquet.read_table(folder / FILES["candidates"], columns=columns).to_pylist()
    for row in sorted(rows, key=lambda row: (row["line"], row["index"])):
        said = [{"role": "assistant", "content": row["text"]}]
        answers[row["line"]].append({"prompt": row["prompt"], "completion": said})
    return [Random(f"control-{seed}-{line}").choice(own) for line, own in answers.items()]


def build(work: Path, asked: int, held_out: int, candidates: int, seed: int) -> Page:
    """Distil, tune twice, and measure."""
    from winnow.loadtests.benchmarks.distill_demo.measures import best, judged, sampled
    from winnow.loadtests.benchmarks.distill_demo.page import Page
    from winnow.models.demo.networks import load_template
    from winnow.models.training.sft import Schedule, fine_tune

    lessons = training_prompts(asked)
    export = distilled(lessons, candidates, seed, work)
    learned = {CONTROL: control(export, seed), WINNERS: winners(export)}
    schedule = Schedule(seed=seed)
    folders = {ORIGINAL: demo.weights("policy"), CONTROL: work / "control", WINNERS: work / "winners"}
    for name, examples in learned.items():
        typer.echo(f"fine-tuning: {name}")
        fine_tune(examples, schedule, folders[ORIGINAL], export / "chat_template.jinja", folders[name])

    exam, template = held_out_prompts(held_out, seed), load_template(folders[ORIGINAL])
    answers: dict[str, Answers] = {}
    for name, folder in folders.items():
        typer.echo(f"sampling: {name}")
        answers[name] = sampled(folder, exam, candidates, seed)
    chosen = best(exam, answers[ORIGINAL], template)
    measured = [judged(name, exam, answers[name], template) for name in folders]
    return Page(
        made=_made(asked, candidates, schedule),
        samples=candidates,
        lessons=[
            judged(
                name.removeprefix("tuned on "), lessons, [[row["completion"][0]["content"]] for row in rows], template
            )
            for name, rows in learned.items()
        ],
        original=measured[0],
        control=measured[1],
        winners=measured[2],
        best=judged(f"{ORIGINAL}, best of {candidates}", exam, chosen, template),
    )


def _made(asked: int, candidates: int, schedule: Schedule) -> list[str]:
    """What was done, as the page tells it."""
    return [
        f"Written by `make distill-demo`: `winnow distill` drew {candidates} candidates for each of {asked:,} prompts of the demo",
        "world's training side, at temperature 1. Two copies of the demo policy were fine-tuned by TRL's SFTTrainer, with loss on",
        "the answer alone: one on the winner of each prompt, and as a control one on a random candidate of each prompt. For both",
        f"{schedule.epochs} epochs in batches of {schedule.batch}, AdamW with peak rate {schedule.rate:g}, seed {schedule.seed}.",
    ]


def main(
    work: Annotated[
        Path, typer.Option(help="Folder of the run and the tuned policies; the run goes on with it.")
    ] = Path("build/distill-demo"),
    out: Annotated[Path, typer.Option(help="Folder that distill-demo.md and distill-demo.png are written to.")] = Path(
        "docs"
    ),
    prompts: Annotated[int, typer.Option(min=1, help="How many training prompts to distil.")] = 2_000,
    held_out: Annotated[int, typer.Option(min=1, help="How many held-out prompts to judge on.")] = 600,
    candidates: Annotated[
        int, typer.Option("--candidates", "-k", min=2, help="K, and samples a held-out prompt.")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of candidates, control, training and held-out prompts.")] = 0,
) -> None:
    """Distil the best of K into the demo policy, and measure what it learned; writes a table and a plot."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with one_line_errors():
        work.mkdir(parents=True, exist_ok=True)
        page = build(work, prompts, held_out, candidates, seed)
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
