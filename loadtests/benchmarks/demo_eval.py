"""`make demo-eval`: how much better the best of N is, measured on the demo world's held-out prompts.

Answers there are checkable, so true accuracy and safety are measured beside reward, through the very pipeline that serves:
32 candidates a prompt, tagged by the server's tagger. Figures for N < 32 are the exact expectation over all subsets of
size N (Nakano et al. 2021), not one draw. Writes a table and a plot.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.progress import track

from winnow.models.demo.world import DemoPrompt, Kind, Verdict, held_out_pairs, held_out_prompts
from winnow.models.reward_model import RewardModel
from winnow.models.sampling import Sampling
from winnow.models.types import Selection, is_gated
from winnow.server.cli.main import one_line_errors
from winnow.server.service import Service, started
from winnow.server.settings import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (1, 2, 4, 8, 16, 32)
RESAMPLES = 1000
PAIRS = 2000
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt's selection among 32 candidates, with the world's verdict on each, in candidate order."""

    prompt: DemoPrompt
    selection: Selection
    verdicts: tuple[Verdict, ...]

    def best_of(self, size: int, value: Callable[[int], float]) -> float:
        """Expectation of `value(position)` of the best of `size` candidates drawn without replacement."""
        total = len(self.verdicts)
        weights = (math.comb(total - 1 - rank, size - 1) for rank in range(total))
        values = sum(w * value(p) for w, p in zip(weights, self.selection.ranking, strict=True))
        return values / math.comb(total, size)

    def at_random(self, size: int, value: Callable[[int], float], rng: Random) -> float:
        """`value` of one candidate drawn from the first `size`, whatever its reward: the control."""
        return value(rng.randrange(size))

    def wrong(self, position: int) -> float:
        """1 if the answer is not correct, else 0."""
        return 1.0 - self.verdicts[position].correct

    def unsafe(self, position: int) -> float:
        """1 if the answer is unsafe, else 0."""
        return 1.0 - self.verdicts[position].safe

    def reward(self, position: int) -> float:
        """R_c."""
        return self.selection.scored[position].reward.combined


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], rng: Random) -> Interval:
        """The interval of the mean of `values`, resampled with replacement."""
        means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
        return cls(sum(values) / len(values), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1])

    def percent(self) -> str:
        """As `12.3 % (10.1 to 14.5)`."""
        return f"{_percent(self.mean)} ({_percent(self.low)} to {_percent(self.high)})"

    def number(self) -> str:
        """As `0.812 (0.790 to 0.833)`."""
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured at one N."""

    size: int
    error: Interval
    unsafe: Interval
    reward: Interval
    random_error: Interval
    random_unsafe: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything the table and the plot show."""

    prompts: int
    rows: tuple[Row, ...]
    pair_accuracy: dict[Kind, float]
    gate_precision: float
    gate_recall: float
    tagged: float
    false_alarms: float


async def evaluate(service: Service, prompts: int, seed: int) -> Evaluation:
    """Sample, score and judge `prompts` held-out prompts, and score the held-out pairs."""
    asked = held_out_prompts(prompts, seed)
    places = asyncio.Semaphore(AT_ONCE)

    async def judge(prompt: DemoPrompt, index: int) -> Judged:
        async with places:
            rendered = service.template.render(prompt.messages, is_safety=service.tagger(prompt.messages))
            sampling = Sampling(max_tokens=96, temperature=service.settings.temperature, seed=seed + index)
            selection = await service.pipeline.select(rendered, sampling, max(SIZES), service.settings.combiner)
        return Judged(prompt, selection, tuple(prompt.judge(item.candidate.text) for item in selection.scored))

    runs = [asyncio.create_task(judge(prompt, index)) for index, prompt in enumerate(asked)]
    judged = [await run for run in track(runs, "sampling and scoring")]
    models: dict[Kind, RewardModel] = {"safety": service.safety, "helpfulness": service.helpfulness}
    precision, recall = _gate(judged)
    return Evaluation(
        prompts=prompts,
        rows=tuple(_row(judged, size, Random(f"{seed}-{size}")) for size in SIZES),
        pair_accuracy={kind: await _pair_accuracy(service, models[kind], kind, seed) for kind in get_args(Kind)},
        gate_precision=precision,
        gate_recall=recall,
        tagged=_share(service.tagger(prompt.messages) for prompt in asked if prompt.is_safety),
        false_alarms=_share(service.tagger(prompt.messages) for prompt in asked if not prompt.is_safety),
    )


def _row(judged: Sequence[Judged], size: int, rng: Random) -> Row:
    return Row(
        size=size,
        error=Interval.of([item.best_of(size, item.wrong) for item in judged], rng),
        unsafe=Interval.of([item.best_of(size, item.unsafe) for item in judged], rng),
        reward=Interval.of([item.best_of(size, item.reward) for item in judged], rng),
        random_error=Interval.of([item.at_random(size, item.wrong, rng) for item in judged], rng),
        random_unsafe=Interval.of([item.at_random(size, item.unsafe, rng) for item in judged], rng),
    )


def _gate(judged: Sequence[Judged]) -> tuple[float, float]:
    """Precision and recall of R_s < 0.15 as a detector of unsafe answers, over all candidates."""
    gated_and_unsafe = [
        (is_gated(item.reward.safety_logit), not verdict.safe)
        for one in judged
        for item, verdict in zip(one.selection.scored, one.verdicts, strict=True)
    ]
    precision = _share(unsafe for gated, unsafe in gated_and_unsafe if gated)
    recall = _share(gated for gated, unsafe in gated_and_unsafe if unsafe)
    return precision, recall


async def _pair_accuracy(service: Service, model: RewardModel, kind: Kind, seed: int) -> float:
    async def is_right(pair_index: int) -> bool:
        pair = pairs[pair_index]
        prompt = service.template.render(pair.messages)
        chosen, rejected = await asyncio.gather(
            model.score(prompt, service.template.encode_answer(pair.chosen)),
            model.score(prompt, service.template.encode_answer(pair.rejected)),
        )
        return chosen > rejected

    pairs = held_out_pairs(PAIRS, seed, kind=kind)
    return _share(await asyncio.gather(*map(is_right, range(PAIRS))))


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else math.nan


def table(evaluation: Evaluation) -> str:
    """The figures as Markdown."""
    lines = [
        "# Demo evaluation",
        "",
        f"{evaluation.prompts} held-out prompts of the demo world, {max(SIZES)} candidates each at the server's default",
        "temperature, sampled and scored by the serving pipeline; written by `make demo-eval`. Means with 95 % bootstrap",
        "intervals over prompts; N < 32 is the exact expectation over subsets. The control takes a candidate at random.",
        "",
        "![error, unsafe answers and reward against N](demo-eval.png)",
        "",
        "| N | wrong answers | unsafe answers | mean R_c | control: wrong | control: unsafe |",
        "|---|---|---|---|---|---|",
    ]
    for row in evaluation.rows:
        cells = [row.error.percent(), row.unsafe.percent(), row.reward.number()]
        cells += [row.random_error.percent(), row.random_unsafe.percent()]
        lines.append(f"| {row.size} | {' | '.join(cells)} |")
    lines += ["", "| | |", "|---|---|"]
    for kind, accuracy in evaluation.pair_accuracy.items():
        lines.append(f"| pair accuracy of the {kind} model, {PAIRS} held-out pairs | {_percent(accuracy)} |")
    lines += [
        f"| gate R_s < 0.15 as a detector of unsafe answers: precision | {_percent(evaluation.gate_precision)} |",
        f"| gate R_s < 0.15 as a detector of unsafe answers: recall | {_percent(evaluation.gate_recall)} |",
        f"| dangerous requests that the tagger tags | {_percent(evaluation.tagged)} |",
        f"| harmless requests that it tags too | {_percent(evaluation.false_alarms)} |",
    ]
    return "\n".join(lines) + "\n"


def plot(evaluation: Evaluation, path: Path) -> None:
    """Draw error, unsafe rate and reward against N, with intervals and the control."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True)
    rows = evaluation.rows
    _draw(axes[0], "wrong answers", [row.error for row in rows], [row.random_error for row in rows])
    _draw(axes[1], "unsafe answers", [row.unsafe for row in rows], [row.random_unsafe for row in rows])
    _draw(axes[2], "mean R_c", [row.reward for row in rows], None)
    axes[0].legend(frameon=False)
    figure.suptitle(f"Demo models, {evaluation.prompts} held-out prompts: the best of N, with 95 % intervals")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(axes: Axes, title: str, best: Sequence[Interval], control: Sequence[Interval] | None) -> None:
    for label, colour, intervals in (("best of N", "#0b6e4f", best), ("random of N", "#9a9a9a", control or ())):
        if intervals:
            axes.plot(SIZES, [item.mean for item in intervals], marker="o", color=colour, label=label)
            lows, highs = [item.low for item in intervals], [item.high for item in intervals]
            axes.fill_between(SIZES, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.set_ylim(0, 1 if control is None else None)
    axes.set_xlabel("N")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    if control is not None:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def main(
    out: Annotated[Path, typer.Option(help="Folder that demo-eval.md and demo-eval.png are written to.")] = Path(
        "docs"
    ),
    prompts: Annotated[int, typer.Option(min=1, help="How many held-out prompts to ask.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the prompts and the candidates.")] = 0,
) -> None:
    """Measure the demo models on held-out prompts, and write a table and a plot."""
    with one_line_errors(), started(load()) as service:
        evaluation = asyncio.run(evaluate(service, prompts, seed))
    out.mkdir(parents=True, exist_ok=True)
    text = table(evaluation)
    (out / "demo-eval.md").write_text(text, encoding="utf-8")
    plot(evaluation, out / "demo-eval.png")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
