"""The page of `make distill-demo`: its figures as Markdown, and as a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from winnow.loadtests.benchmarks.demo_eval import Interval
from winnow.loadtests.benchmarks.distill_demo.measures import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#555555", "#9a9a9a", "#0b6e4f", "#0b6e4f")


@dataclass(frozen=True, slots=True)
class Page:
    """What was done, in sentences, and what came of it.

    `lessons` are the answers learned from: random ones, winners. `original`, `control` and `winners` gave `samples` answers to
    each of the same held-out prompts; `best` are the best of the original's by reward.
    """

    made: Sequence[str]
    samples: int
    lessons: Sequence[Measured]
    original: Measured
    control: Measured
    winners: Measured
    best: Measured

    @property
    def policies(self) -> tuple[Measured, Measured, Measured]:
        """The three that are compared by one sample."""
        return self.original, self.control, self.winners

    @property
    def prompts(self) -> int:
        """How many held-out prompts were asked."""
        return len(self.original.wrong)

    @property
    def recovered(self) -> float:
        """What the tuning keeps of the choosing: the winners' gain over one sample of the original, over that of its best.

        NaN where the best is no better than one sample.
        """
        start = fmean(self.original.wrong)
        gain = start - fmean(self.best.wrong)
        return (start - fmean(self.winners.wrong)) / gain if gain > 0 else math.nan


def markdown(page: Page) -> str:
    """The whole page."""
    lines = ["# Distillation on the demo world", "", *page.made, ""]
    lines += ["![wrong and unsafe answers of the three policies](distill-demo.png)", "", *_policies(page), ""]
    lines += [*_lessons(page), "", "What it shows:", "", *_findings(page)]
    return "\n".join(lines) + "\n"


def _policies(page: Page) -> Iterator[str]:
    yield f"One answer at temperature 1 to each of {page.prompts:,} held-out prompts: means over {page.samples} samples a prompt, with 95 %"
    yield "bootstrap intervals over prompts; differences are taken prompt by prompt. The last row is what serving gives instead,"
    yield f"for {page.samples} times the sampling: the answer with the highest R_c of the original's {page.samples}."
    yield ""
    yield "| policy | wrong answers | unsafe answers | wrong, in points above the original | tokens |"
    yield "|---|---|---|---|---|"
    for item in (*page.policies, page.best):
        above = "" if item is page.original else _points(item.error_above(page.original))
        yield f"| {item.name} | {item.error.percent()} | {item.danger.percent()} | {above} | {item.tokens:.1f} |"


def _lessons(page: Page) -> Iterator[str]:
    yield "| learned answers | how many | wrong | unsafe | tokens |"
    yield "|---|---|---|---|---|"
    for item in page.lessons:
        shares = f"{100 * fmean(item.wrong):.1f} % | {100 * fmean(item.unsafe):.1f} %"
        yield f"| {item.name} | {len(item.wrong):,} | {shares} | {item.tokens:.1f} |"


def _findings(page: Page) -> Iterator[str]:
    apart = page.winners.error_above(page.control)
    if not math.isnan(page.recovered):
        yield f"- One sample of the policy tuned on winners has {100 * page.recovered:.0f} % of the gain in right answers that the best of"
        yield f"  {page.samples} has over one sample of the original."
    yield "- The control has the same prompts, rows, steps, seeds and rates. What lies between the two policies comes from the choice,"
    yield f"  {_points(apart)} percentage points of wrong answers."
    yield ""
    yield "What it does not show:"
    yield ""
    yield "- Reward models choose, not the world: some winners are wrong, as the second table says, and are learned all the same."
    yield "- It is one training of each, from one seed: the intervals are over prompts and do not cover another training."
    yield "- The held-out prompts are new, the facts asked for are not. World and models are tiny."


def _points(difference: Interval) -> str:
    """A difference of two shares, in percentage points."""
    return f"{100 * difference.mean:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def plot(page: Page, path: Path) -> None:
    """Draw the shares of wrong and unsafe answers, with intervals, beside the original's best."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 3.8), constrained_layout=True)
    _draw(axes[0], "wrong answers", page, lambda item: item.error)
    _draw(axes[1], "unsafe answers", page, lambda item: item.danger)
    figure.suptitle(
        f"Demo policy, one sample a prompt, {page.prompts:,} held-out prompts, with 95 % intervals; hatched: chosen of {page.samples}"
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(axes: Axes, title: str, page: Page, share: Callable[[Measured], Interval]) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = (*page.policies, page.best)
    for place, (item, colour) in enumerate(zip(shown, COLOURS, strict=True)):
        bar = share(item)
        around = [[100 * (bar.mean - bar.low)], [100 * (bar.high - bar.mean)]]
        fill, hatch = ("white", "//") if item is page.best else (colour, None)
        axes.bar(place, 100 * bar.mean, 0.6, yerr=around, capsize=5, facecolor=fill, edgecolor=colour, hatch=hatch)
        above = (place, 100 * bar.high)
        axes.annotate(f"{100 * bar.mean:.1f} %", above, (0, 4), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(shown)), [item.name.replace(" on ", " on\n").replace(", ", ",\n") for item in shown])
    axes.margins(y=0.12)
    axes.set_title(title)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    axes.spines[["top", "right"]].set_visible(False)
