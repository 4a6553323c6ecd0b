"""The page of `make distill-demo`: its figures as Markdown, and as a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from winnow.loadtests.benchmarks.distill_demo.measures import Measured
from winnow.loadtests.benchmarks.pages import panels, percent, table, with_interval
from winnow.models.reporting.plots import GREEN, GREY, INK
from winnow.models.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (INK, GREY, GREEN, GREEN)
"""Of the original, the control, the policy tuned on winners, and the original's best of K."""


@dataclass(frozen=True, slots=True)
class Page:
    """The method in words, and the results.

    `lessons` are the two sets of answers that were trained on: random ones, winners. `original`, `control` and
    `winners` gave `samples` answers to each of the same held-out prompts; `best` has the best of the
    original's by reward.
    """

    intro: str
    samples: int
    lessons: Sequence[Measured]
    original: Measured
    control: Measured
    winners: Measured
    best: Measured

    @property
    def policies(self) -> tuple[Measured, Measured, Measured]:
        """The three policies that are compared by single samples."""
        return self.original, self.control, self.winners

    @property
    def prompts(self) -> int:
        """The number of held-out prompts."""
        return len(self.original.wrong)

    @property
    def recovered(self) -> float:
        """The gain of tuning on winners over one sample of the original, as a share of the gain of its best of K.

        NaN if the best of K is no better than one sample.
        """
        start = fmean(self.original.wrong)
        gain = start - fmean(self.best.wrong)
        return (start - fmean(self.winners.wrong)) / gain if gain > 0 else math.nan


def markdown(page: Page) -> str:
    """Return the whole page."""
    policies = ("policy", "wrong answers", "unsafe answers", "wrong, in points above the original", "tokens")
    lessons = ("answers trained on", "number", "wrong", "unsafe", "tokens")
    above = with_interval(page.winners.error_above(page.control), _points)
    return f"""\
# Distillation on the demo world

{page.intro}

![wrong and unsafe answers of the three policies](distill-demo.png)

One answer at temperature 1 to each of {page.prompts:,} held-out prompts: means over {page.samples} samples a
prompt, with 95 % bootstrap intervals over prompts; differences are taken prompt by prompt. The last row is the
alternative at serving time, which costs {page.samples} times the sampling: the answer with the highest R_c of the
original's {page.samples}.

{table(policies, _policies(page))}

{table(lessons, map(_lesson, page.lessons))}

What it shows:

{_recovered(page)}\
- The control has the same prompts, rows, steps, seeds and rates. So the difference between the two policies
  comes from the choice of answers: {above} percentage points of wrong answers.

What it does not show:

- Reward models choose, not the world: some winners are wrong, as the second table says, and are trained on all
  the same.
- It is one training of each, from one seed: the intervals are over prompts and do not cover another training.
- The held-out prompts are new, the facts asked for are not. World and models are tiny.
"""


def _recovered(page: Page) -> str:
    if math.isnan(page.recovered):
        return ""
    return f"""\
- One sample of the policy tuned on winners has {100 * page.recovered:.0f} % of the gain in right answers that the
  best of {page.samples} has over one sample of the original.
"""


def _policies(page: Page) -> Iterator[tuple[str, ...]]:
    for item in (*page.policies, page.best):
        above = "" if item is page.original else with_interval(item.error_above(page.original), _points)
        error, danger = with_interval(item.error, percent), with_interval(item.danger, percent)
        yield item.name, error, danger, above, f"{item.tokens:.1f}"


def _lesson(item: Measured) -> tuple[str, ...]:
    wrong, unsafe = percent(fmean(item.wrong)), percent(fmean(item.unsafe))
    return item.name, f"{len(item.wrong):,}", wrong, unsafe, f"{item.tokens:.1f}"


def _points(difference: float) -> str:
    """Return a difference of two shares in percentage points."""
    return f"{100 * difference:+.1f}"


def plot(page: Page, path: Path) -> None:
    """Draw the shares of wrong and unsafe answers, with intervals, beside the original's best of K."""
    prompts = f"{page.prompts:,} held-out prompts, with 95 % intervals"
    with panels(path, 2, f"Demo policy, one sample a prompt, {prompts}; hatched: best of {page.samples}") as axes:
        _draw(axes[0], "wrong answers", page, lambda item: item.error)
        _draw(axes[1], "unsafe answers", page, lambda item: item.danger)


def _draw(axes: Axes, title: str, page: Page, share: Callable[[Measured], Interval]) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = (*page.policies, page.best)
    for place, (item, colour) in enumerate(zip(shown, COLOURS, strict=True)):
        bar = share(item)
        around = [[100 * (bar.value - bar.low)], [100 * (bar.high - bar.value)]]
        fill, hatch = ("white", "//") if item is page.best else (colour, None)
        axes.bar(place, 100 * bar.value, 0.6, yerr=around, capsize=5, facecolor=fill, edgecolor=colour, hatch=hatch)
        above = (place, 100 * bar.high)
        axes.annotate(percent(bar.value), above, (0, 4), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(shown)), [item.name.replace(" on ", " on\n").replace(", ", ",\n") for item in shown])
    axes.margins(y=0.12)
    axes.set_title(title)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
