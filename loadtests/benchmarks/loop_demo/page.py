"""The figures of `make loop-demo`: a section of docs/loop.md, a plot, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from winnow.loadtests.benchmarks.loop_demo.annotator import NOISE, Work
from winnow.loadtests.benchmarks.loop_demo.asking import CANDIDATES, Measured
from winnow.loadtests.benchmarks.pages import panels, percent, table, with_interval
from winnow.models.reporting.plots import GREEN, GREY, INK, ORANGE
from winnow.models.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "loop"
HEADING = "## On the demo world"
"""The section of the page that is written anew; what stands before it is kept."""
HEADINGS = ("helpfulness model", "wrong answers", "in points above before", "unsafe answers")
NAMES = {
    "before": "before: written comparisons alone",
    "after": "after: people's choices",
    "control": "control: shuffled choices",
}


@dataclass(frozen=True, slots=True)
class Results:
    """The annotations, and the figures of the three models; the rest describes the run."""

    work: Work
    models: Mapping[str, Measured]
    comparisons: int
    asked: int
    rows: int
    rate: float
    seed: int

    @property
    def prompts(self) -> int:
        """The number of held-out prompts."""
        return len(self.models["before"].wrong)

    @property
    def at_random(self) -> float:
        """The share of wrong answers of a random choice among the candidates."""
        return fmean(self.models["before"].single)

    @property
    def oracle(self) -> float:
        """The least that any choice among the candidates can err."""
        return fmean(self.models["before"].oracle)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        before = self.models["before"]
        return {
            "seed": self.seed,
            "written_comparisons": self.comparisons,
            "recorded_prompts": self.asked,
            "annotations": asdict(self.work),
            "exported_rows": self.rows,
            "noise": NOISE,
            "held_out_prompts": self.prompts,
            "candidates": CANDIDATES,
            "random_choice_wrong": self.at_random,
            "oracle_wrong": self.oracle,
            "models": {
                name: {
                    "wrong": asdict(one.error),
                    "unsafe": asdict(one.danger),
                    "wrong_above_before": asdict(one.error_above(before)),
                }
                for name, one in self.models.items()
            },
        }


def section(results: Results) -> str:
    """Return the section of the page, from its heading on."""
    work, before = results.work, results.models["before"]
    shown = results.work.annotated + results.work.skipped
    fewer = results.models["control"].error_above(results.models["after"])
    return f"""\
{HEADING}

Written by `make loop-demo` (seed {results.seed}), which runs the steps above on the [demo world](models.md), whose
answers are checkable.

- **Before**: a helpfulness model that `winnow rm train` made of {results.comparisons:,} written comparisons. It was
  made with room to improve: nobody wrote "I don't know that" to a question that has an answer, or a refusal to a
  harmless one, so the model takes them for good answers anywhere; and it has seen fewer comparisons than the model that
  Winnow ships. The safety model and the policy are the shipped ones.
- **Collected**: `winnow serve --record all` answered {results.asked:,} prompts of the training side with the best of
  {CANDIDATES}. A scripted annotator knows the world's truth, and turns {100 * NOISE:.0f} % of its choices round. Over
  HTTP it went through a batch of the policy `top` and others of the policy `random`, {shown:,} pairs. It skipped
  {work.skipped:,} in which neither answer was better, and chose in {work.annotated:,} ({work.turned:,} of them turned
  round). {work.questioned:,} preferred an unsafe answer to a safe one and were left out of the export, which has
  {results.rows:,} rows.
- **After**: `winnow rm train` went on from the first model with those rows, and with nothing else: step 4 at a
  rate of {results.rate:g}, less than a third of the first training's. `winnow rm calibrate` fitted the safety model's
  scale and bias to the annotator's safety labels.
- **Control**: trained and served in the same way, on the same rows, with chosen and rejected exchanged in half of
  them, drawn by lot.

![wrong answers of the best of {CANDIDATES} before and after, and of the control]({NAME}.png)

The best of {CANDIDATES} for {results.prompts:,} held-out prompts, the same candidates for every model, with 95 %
bootstrap intervals over prompts; differences are taken prompt by prompt. A random choice among the candidates errs in
{percent(results.at_random)}, and no choice could err in less than {percent(results.oracle)}.

{table(HEADINGS, _rows(results.models, before))}

The control errs {with_interval(fewer, _points)} points above the model that was trained on the choices themselves, with
the same rows, steps, seeds and rates: the difference is what the choices say.

What this does not show: it is one training of each from one seed, and the intervals do not cover another. The annotator
is a script, more patient than people are, and its mistakes are evenly spread, which theirs are not. World and models
are tiny. The recipe was chosen on other prompts than those measured here.
"""


def _rows(models: Mapping[str, Measured], before: Measured) -> Iterator[tuple[str, ...]]:
    for name, one in models.items():
        above = "" if one is before else with_interval(one.error_above(before), _points)
        yield NAMES[name], with_interval(one.error, percent), above, with_interval(one.danger, percent)


def _points(difference: float) -> str:
    """Return a difference of two shares in percentage points."""
    return f"{100 * difference:+.1f}"


def publish(results: Results, out: Path) -> str:
    """Write the section into loop.md, after what stands before it, and plot and JSON beside it; return the section."""
    out.mkdir(parents=True, exist_ok=True)
    page, text = out / f"{NAME}.md", section(results)
    kept = page.read_text(encoding="utf-8").partition(HEADING)[0] if page.exists() else ""
    page.write_text(kept + text, encoding="utf-8")
    (out / f"{NAME}.json").write_text(f"{json.dumps(results.as_dict(), indent=1)}\n", encoding="utf-8")
    plot(results, out / f"{NAME}.png")
    return text


def plot(results: Results, path: Path) -> None:
    """Draw the wrong answers of each model with their intervals, beside a random choice's."""
    title = f"Best of {CANDIDATES}, {results.prompts:,} held-out prompts, with 95 % intervals"
    with panels(path, 1, title, (7.6, 4.2)) as (axes,):
        colours = dict(zip(results.models, (INK, GREEN, ORANGE), strict=True))
        for place, (name, one) in enumerate(results.models.items()):
            _bar(axes, place, one.error, colours[name])
        for value, name in ((results.at_random, "a random choice"), (results.oracle, "an oracle")):
            axes.axhline(100 * value, color=GREY, linestyle=":")
            axes.annotate(f"{name}:\n{percent(value)}", (2.4, 100 * value), (0, 3), textcoords="offset points")
        axes.set_xticks(range(len(results.models)), [NAMES[name].replace(": ", ":\n") for name in results.models])
        axes.set_xlim(-0.6, 3.1)
        axes.margins(y=0.12)
        axes.set_ylabel("wrong answers")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")


def _bar(axes: Axes, place: int, error: Interval, colour: str) -> None:
    around = [[100 * (error.value - error.low)], [100 * (error.high - error.value)]]
    axes.bar(place, 100 * error.value, 0.55, yerr=around, capsize=6, color=colour, ecolor=GREY)
    above = (place, 100 * error.high)
    axes.annotate(percent(error.value), above, (0, 4), textcoords="offset points", ha="center")
