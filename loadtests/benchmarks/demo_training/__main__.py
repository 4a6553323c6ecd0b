"""`make demo`: the demo models from nothing. A policy on good and bad answers, then both reward models in rounds.

Writes the three models to `--out`, and a page with the rounds. Each stage keeps its files in `--work`, and a second
call goes on from them.
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
    out: Annotated[Path, typer.Option(help="Folder for policy/, safety-rm/ and helpfulness-rm/.")] = Path(
        "models/demo/weights"
    ),
    docs: Annotated[Path, typer.Option(help="Folder for demo-rounds.md and demo-rounds.png.")] = Path("docs"),
    work: Annotated[Path, typer.Option(help="Folder of all stages; the same command goes on with them.")] = Path(
        "build/demo"
    ),
    scale: Annotated[float, typer.Option(help="Share of the full training; small for a trial.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
) -> None:
    """Train the demo models anew, about an hour on two cores."""
    for name, value in {**COMMON, "HF_HUB_OFFLINE": "1"}.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from winnow.loadtests.benchmarks.demo_training import page
    from winnow.loadtests.benchmarks.demo_training.rounds import MEASURED, Rounds, TrainingFailed, publish
    from winnow.models.demo import networks
    from winnow.models.demo.train import train_policy

    folder = train_policy(work, seed, scale)
    rounds = Rounds(folder, networks.load_tokenizer(folder), work, scale, seed)
    try:
        models, figures = rounds.run()
    except TrainingFailed as error:
        sys.exit(f"demo: {error}")
    publish(folder, out / "policy")
    for kind, trained in models.items():
        publish(trained, out / f"{kind}-rm", f"winnow-demo-{kind}")
    page.write(figures, docs, rounds.size(MEASURED))


if __name__ == "__main__":
    typer.run(main)
