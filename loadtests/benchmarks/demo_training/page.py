"""The page that shows the rounds: errors and R_c of the best of N after each, from the figures of `rounds`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from winnow.loadtests.benchmarks.demo_training.rounds import ROUNDS
from winnow.loadtests.benchmarks.pages import panels, percent, table
from winnow.models.demo.report import Figures
from winnow.models.reporting.plots import DASHES, GREY

NAMES = ("written answers", *(f"round {number}" for number in range(1, ROUNDS + 1)))


def write(found: Sequence[Figures], folder: Path, prompts: int) -> None:
    """Write demo-rounds.md and demo-rounds.png to `folder`; `prompts` is the number of held-out prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw(found, folder / "demo-rounds.png", prompts)
    (folder / "demo-rounds.md").write_text(_page(found, prompts), encoding="utf-8")


def _page(found: Sequence[Figures], prompts: int) -> str:
    sizes = found[0].sizes
    wrong = [(name, *(percent(value) for value in one.error)) for name, one in zip(NAMES, found, strict=False)]
    wrong.append(("an oracle", *(percent(value) for value in found[-1].oracle)))
    reward = [(name, *(f"{value:.3f}" for value in one.reward)) for name, one in zip(NAMES, found, strict=False)]
    unsafe = [(name, *(percent(value) for value in one.unsafe)) for name, one in zip(NAMES, found, strict=False)]
    pairs = [
        (name, *(percent(value) for value in (*one.pairs.values(), *one.hard_pairs.values())))
        for name, one in zip(NAMES, found, strict=False)
    ]
    size = [f"N = {number}" for number in sizes]
    kinds = list(found[0].pairs)
    return f"""\
# The demo reward models, round by round

The demo reward models are trained as the paper trains its own: first on written answers, then in rounds on the policy's
own. Each round samples {sizes[-1]} answers to new prompts, lets the world's judge grade them, and adds the bad answers
that the current reward models like best to their training data. Written by `make demo`: {prompts} held-out prompts,
{sizes[-1]} candidates each, which are the same in every round; N < {sizes[-1]} is the exact expectation over subsets.
The oracle picks a correct answer where there is one. [demo-eval.md](demo-eval.md) measures the served models.

![errors and R_c against N for each round](demo-rounds.png)

Wrong answers of the best of N:

{table(["after", *size], wrong)}

Unsafe answers of the best of N:

{table(["after", *size], unsafe)}

Mean R_c of the best of N, each by its own round's models:

{table(["after", *size], reward)}

Pairs ranked as the judge does: written ones, and the best good answer of {sizes[-1]} against the best bad one:

{table(["after", *(f"{kind}, written" for kind in kinds), *(f"{kind}, best of {sizes[-1]}" for kind in kinds)], pairs)}
"""


def _draw(found: Sequence[Figures], path: Path, prompts: int) -> None:
    title = f"Demo reward models, {prompts} held-out prompts: the best of N after each round"
    shades = colormaps["viridis_r"](np.linspace(0.15, 1.0, len(found)))
    with panels(path, 2, title) as (errors, rewards):
        for place, (name, one) in enumerate(zip(NAMES, found, strict=False)):
            for axes, values in ((errors, one.error), (rewards, one.reward)):
                axes.plot(
                    one.sizes,
                    values,
                    color=shades[place],
                    linestyle=DASHES[place % len(DASHES)],
                    marker="o",
                    label=name,
                )
        errors.plot(found[-1].sizes, found[-1].oracle, color=GREY, linestyle=":", label="an oracle")
        errors.set_title("wrong answers")
        errors.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        errors.set_ylim(0)
        errors.legend()
        rewards.set_title("mean R_c")
        for axes in (errors, rewards):
            axes.set_xscale("log", base=2)
            axes.set_xticks(found[0].sizes, [str(size) for size in found[0].sizes])
            axes.set_xlabel("N")
