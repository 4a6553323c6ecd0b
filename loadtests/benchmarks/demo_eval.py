"""`make demo-eval`: the gain of best-of-N, measured on the demo world's held-out prompts.

Answers in that world are checkable, so true accuracy and safety are measured beside reward. `winnow serve` runs
on the demo models and is asked over HTTP: 32 candidates a prompt, tagged by the server's own safety classifier.
Figures for N < 32 are the exact expectation over all subsets of size N (Nakano et al. 2021), not one draw.
Writes a table and a plot.

The wire gives R_h only where it decides R_c. So the helpfulness model's pair accuracy is measured on a second
server, which runs it in the place of the safety model and reports its score of every answer as R_s.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track

from winnow.clients import AsyncClient, WinnowClientError
from winnow.clients.schema import Scored
from winnow.loadtests.benchmarks.pages import panels, percent, table, with_interval
from winnow.loadtests.benchmarks.processes import ServerFailed
from winnow.loadtests.benchmarks.winnow_process import DEMO_MODELS, as_json, winnow_server
from winnow.models import demo
from winnow.models.demo.world import DemoPrompt, Kind, Pair, Verdict, held_out_pairs, held_out_prompts
from winnow.models.reporting.plots import GREEN, GREY
from winnow.models.statistics import Interval, best_weights, mean_interval
from winnow.models.training.evaluation import pair_accuracy, precision_and_recall, share
from winnow.models.types import SAFETY_THRESHOLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (1, 2, 4, 8, 16, 32)
PAIRS = 2000
MAX_TOKENS = 96
"""Above every answer of the demo world."""
CONCURRENCY = 16
FLAGS = (*DEMO_MODELS, "--max-candidates-in-flight", str(CONCURRENCY * max(SIZES)), "--max-queue-seconds", "600")
"""No request is refused."""
HELPFULNESS_FLAGS = (*FLAGS, "--safety-rm", str(demo.weights("helpfulness-rm")), "--no-canary")
"""The helpfulness model in the place of the safety model; as that it would fail the sanity check."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt's scored candidates in candidate order, and the world's verdict on each."""

    prompt: DemoPrompt
    is_tagged: bool
    candidates: tuple[Scored, ...]
    verdicts: tuple[Verdict, ...]

    def best_of(self, size: int, value: Callable[[int], float]) -> float:
        """Return the expectation of `value(position)` of the best of `size` candidates drawn without replacement."""
        ranking = sorted(range(len(self.candidates)), key=lambda position: self.candidates[position].rank)
        weights: list[float] = best_weights(len(ranking), size).tolist()
        return sum(weight * value(position) for weight, position in zip(weights, ranking, strict=True))

    def at_random(self, size: int, value: Callable[[int], float], rng: Random) -> float:
        """Return `value` of one candidate drawn from the first `size`, whatever its reward: the control."""
        return value(rng.randrange(size))

    def wrong(self, position: int) -> float:
        """Return 1 if the answer is not correct, else 0."""
        return 1.0 - self.verdicts[position].correct

    def unsafe(self, position: int) -> float:
        """Return 1 if the answer is unsafe, else 0."""
        return 1.0 - self.verdicts[position].safe

    def reward(self, position: int) -> float:
        """Return R_c."""
        return self.candidates[position].combined


@dataclass(frozen=True, slots=True)
class Row:
    """The figures at one N, each a mean over prompts with its 95 % bootstrap interval."""

    size: int
    error: Interval
    unsafe: Interval
    reward: Interval
    random_error: Interval
    random_unsafe: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of the table and the plot that rest on sampled answers.

    Precision and recall are those of R_s < 0.15 as a detector of unsafe answers, over all candidates. `tagged`
    and `false_alarms` are the shares of dangerous and of harmless requests that the safety classifier tags.
    """

    prompts: int
    rows: tuple[Row, ...]
    precision: float
    recall: float
    tagged: float
    false_alarms: float


async def evaluate(client: AsyncClient, prompts: int, seed: int) -> Evaluation:
    """Let the server sample and score answers to `prompts` held-out prompts, and judge them.

    Raises:
        WinnowClientError: a request was not answered.
    """
    places = asyncio.Semaphore(CONCURRENCY)
    tasks = [
        asyncio.create_task(_judge(client, prompt, seed + index, places))
        for index, prompt in enumerate(held_out_prompts(prompts, seed))
    ]
    judged = [await task for task in track(tasks, "sampling and scoring")]
    detected = [item.safety < SAFETY_THRESHOLD for one in judged for item in one.candidates]
    precision, recall = precision_and_recall(detected, [not v.safe for one in judged for v in one.verdicts])
    return Evaluation(
        prompts=prompts,
        rows=tuple(_row(judged, size, seed) for size in SIZES),
        precision=precision,
        recall=recall,
        tagged=share(one.is_tagged for one in judged if one.prompt.is_safety),
        false_alarms=share(one.is_tagged for one in judged if not one.prompt.is_safety),
    )


async def _judge(client: AsyncClient, prompt: DemoPrompt, seed: int, places: asyncio.Semaphore) -> Judged:
    async with places:
        answer = await client.answer(
            as_json(prompt.messages), candidates=max(SIZES), max_tokens=MAX_TOKENS, seed=seed, return_candidates=True
        )
    candidates = tuple(sorted(answer.candidates, key=lambda item: item.index))
    verdicts = tuple(prompt.judge(item.text or "") for item in candidates)
    return Judged(prompt, answer.report.is_safety, candidates, verdicts)


def _row(judged: Sequence[Judged], size: int, seed: int) -> Row:
    rng = Random(f"{seed}-{size}")
    return Row(
        size=size,
        error=mean_interval([item.best_of(size, item.wrong) for item in judged], seed),
        unsafe=mean_interval([item.best_of(size, item.unsafe) for item in judged], seed),
        reward=mean_interval([item.best_of(size, item.reward) for item in judged], seed),
        random_error=mean_interval([item.at_random(size, item.wrong, rng) for item in judged], seed),
        random_unsafe=mean_interval([item.at_random(size, item.unsafe, rng) for item in judged], seed),
    )


async def safety_pair_accuracy(client: AsyncClient, pairs: Sequence[Pair]) -> float:
    """Return the share of pairs whose chosen answer has the higher R_s.

    Raises:
        WinnowClientError: a request was not answered.
    """
    places = asyncio.Semaphore(CONCURRENCY)

    async def scores(pair: Pair) -> tuple[float, float]:
        async with places:
            dialog, answers = as_json(pair.messages), [pair.chosen, pair.rejected]
            chosen, rejected = await client.rewards(dialog, answers, is_safety=True)
        return chosen.safety, rejected.safety

    chosen, rejected = zip(*await asyncio.gather(*map(scores, pairs)), strict=True)
    return pair_accuracy(chosen, rejected)


def markdown(evaluation: Evaluation, pair_accuracies: dict[Kind, float]) -> str:
    """Return the page."""
    rows = [
        (
            str(row.size),
            with_interval(row.error, percent),
            with_interval(row.unsafe, percent),
            with_interval(row.reward, "{:.3f}".format),
            with_interval(row.random_error, percent),
            with_interval(row.random_unsafe, percent),
        )
        for row in evaluation.rows
    ]
    others = [
        *((f"pair accuracy of the {k} model, {PAIRS} held-out pairs", a) for k, a in pair_accuracies.items()),
        ("R_s < 0.15 as a detector of unsafe answers: precision", evaluation.precision),
        ("R_s < 0.15 as a detector of unsafe answers: recall", evaluation.recall),
        ("dangerous requests that the safety classifier tags", evaluation.tagged),
        ("harmless requests that it tags too", evaluation.false_alarms),
    ]
    return f"""\
# Demo evaluation

{evaluation.prompts} held-out prompts of the demo world, {max(SIZES)} candidates each at the server's default
temperature, sampled and scored by `winnow serve`; written by `make demo-eval`. Means with 95 % bootstrap
intervals over prompts; N < 32 is the exact expectation over subsets. The control takes a candidate at random.

![error, unsafe answers and reward against N](demo-eval.png)

{table(("N", "wrong answers", "unsafe answers", "mean R_c", "control: wrong", "control: unsafe"), rows)}

{table(("", ""), ((name, percent(value)) for name, value in others))}
"""


def plot(evaluation: Evaluation, path: Path) -> None:
    """Draw error, unsafe rate and reward against N, with intervals and the control."""
    rows = evaluation.rows
    title = f"Demo models, {evaluation.prompts} held-out prompts: the best of N, with 95 % intervals"
    with panels(path, 3, title) as axes:
        _draw(axes[0], "wrong answers", [row.error for row in rows], [row.random_error for row in rows])
        _draw(axes[1], "unsafe answers", [row.unsafe for row in rows], [row.random_unsafe for row in rows])
        _draw(axes[2], "mean R_c", [row.reward for row in rows], None)
        axes[0].legend()


def _draw(axes: Axes, title: str, best: Sequence[Interval], control: Sequence[Interval] | None) -> None:
    for label, colour, intervals in (("best of N", GREEN, best), ("random of N", GREY, control or ())):
        if intervals:
            axes.plot(SIZES, [item.value for item in intervals], marker="o", color=colour, label=label)
            lows, highs = [item.low for item in intervals], [item.high for item in intervals]
            axes.fill_between(SIZES, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.set_ylim(0, 1 if control is None else None)
    axes.set_xlabel("N")
    axes.set_title(title)
    if control is not None:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def measure(prompts: int, seed: int, logs: Path) -> tuple[Evaluation, dict[Kind, float]]:
    """Start the servers, one after the other, and measure; their logs go to the folder `logs`."""
    safety_pairs, helpfulness_pairs = (held_out_pairs(PAIRS, seed, kind=k) for k in ("safety", "helpfulness"))

    async def on_demo_models(url: str) -> tuple[Evaluation, float]:
        async with AsyncClient(f"{url}/v1") as client:
            return await evaluate(client, prompts, seed), await safety_pair_accuracy(client, safety_pairs)

    async def on_helpfulness_model(url: str) -> float:
        async with AsyncClient(f"{url}/v1") as client:
            return await safety_pair_accuracy(client, helpfulness_pairs)

    with winnow_server(FLAGS, logs / "serve.log") as url:
        evaluation, safety = asyncio.run(on_demo_models(url))
    with winnow_server(HELPFULNESS_FLAGS, logs / "serve-helpfulness.log") as url:
        return evaluation, {"safety": safety, "helpfulness": asyncio.run(on_helpfulness_model(url))}


def main(
    out: Annotated[Path, typer.Option(help="Folder for demo-eval.md and demo-eval.png.")] = Path("docs"),
    prompts: Annotated[int, typer.Option(min=1, help="Number of held-out prompts.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the prompts and the candidates.")] = 0,
) -> None:
    """Measure the demo models on held-out prompts, and write a table and a plot."""
    try:
        with tempfile.TemporaryDirectory(prefix="winnow-demo-eval-") as logs:
            evaluation, accuracies = measure(prompts, seed, Path(logs))
    except (ServerFailed, WinnowClientError) as error:
        sys.exit(f"demo-eval: {error}")
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(evaluation, accuracies)
    (out / "demo-eval.md").write_text(text, encoding="utf-8")
    plot(evaluation, out / "demo-eval.png")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
