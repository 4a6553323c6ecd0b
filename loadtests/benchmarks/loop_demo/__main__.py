"""`make loop-demo`: from served answers to a better reward model, with a control; writes docs/loop.*.

`winnow serve` records answers; a scripted annotator chooses between two of them over HTTP; `winnow export`, `winnow rm
train` and `winnow rm calibrate` make a model of its choices, which `winnow serve` is then measured with. About half an
hour on two cores; what is done stays in the work folder.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from winnow.models.engines.environment import COMMON


def main(
    work: Annotated[Path, typer.Option(help="Folder of store and models; the same command goes on with it.")] = Path(
        "build/loop-demo"
    ),
    out: Annotated[Path, typer.Option(help="Folder for loop.md, loop.png and loop.json.")] = Path("docs"),
    comparisons: Annotated[int, typer.Option(min=200, help="Written comparisons of the first model.")] = 9_000,
    asked: Annotated[int, typer.Option(min=1, help="Prompts whose answers are recorded.")] = 600,
    choices: Annotated[int, typer.Option(min=1, help="Pairs that are annotated.")] = 600,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out prompts to measure on.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
) -> None:
    """Close the loop on the demo world, and write its figures and a plot."""
    for name, value in {**COMMON, "HF_HUB_OFFLINE": "1"}.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("winnow.loadtests").setLevel(logging.INFO)
    from winnow.clients import WinnowClientError
    from winnow.loadtests.benchmarks.demo_training.rounds import TrainingFailed
    from winnow.loadtests.benchmarks.loop_demo.annotator import AnnotationRefused
    from winnow.loadtests.benchmarks.loop_demo.page import publish
    from winnow.loadtests.benchmarks.loop_demo.steps import Loop, Plan, StepFailed
    from winnow.loadtests.benchmarks.processes import ServerFailed

    loop = Loop(Plan(work, comparisons, asked, choices, held_out, seed))
    try:
        results = loop.run()
    except (AnnotationRefused, ServerFailed, StepFailed, TrainingFailed, WinnowClientError) as error:
        sys.exit(f"loop-demo: {error}")
    typer.echo(publish(results, out))


if __name__ == "__main__":
    typer.run(main)
