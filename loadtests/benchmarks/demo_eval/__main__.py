"""`make demo-eval`: the gain of best-of-N, measured on the demo world's held-out prompts.

Answers in that world are checkable, so true accuracy and safety are measured beside reward. `winnow serve` runs
on the demo models and is asked over HTTP: 64 candidates a prompt, tagged by the server's own safety classifier.
Figures for N < 64 are the exact expectation over all subsets of size N (Nakano et al. 2021), not one draw. The
README's questions, and some that no demo model can answer, are asked at the default K. Writes a page and a plot.

The helpfulness model's pair accuracy is measured on a second server; see `pairs`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from winnow.clients import AsyncClient, WinnowClientError
from winnow.loadtests.benchmarks.demo_eval import pairs as of_pairs
from winnow.loadtests.benchmarks.demo_eval.figures import evaluate
from winnow.loadtests.benchmarks.demo_eval.judged import CANDIDATES, CONCURRENCY, Judged, sample_and_judge
from winnow.loadtests.benchmarks.demo_eval.page import Results, markdown, plot
from winnow.loadtests.benchmarks.demo_eval.pairs import PAIRS, PairFigures
from winnow.loadtests.benchmarks.demo_eval.questions import FirstQuestions, ask_first_questions
from winnow.loadtests.benchmarks.processes import ServerFailed
from winnow.loadtests.benchmarks.winnow_process import DEMO_MODELS, winnow_server
from winnow.models import demo
from winnow.models.demo.world import held_out_pairs

FLAGS = (*DEMO_MODELS, "--max-candidates-in-flight", str(CONCURRENCY * CANDIDATES), "--max-queue-seconds", "600")
"""No request is refused."""
HELPFULNESS_FLAGS = (*FLAGS, "--safety-rm", str(demo.weights("helpfulness-rm")), "--no-canary")
"""The helpfulness model in the place of the safety model; as that it would fail the sanity check."""


def measure(prompts: int, seed: int, logs: Path) -> Results:
    """Start the servers, one after the other, and measure; their logs go to the folder `logs`."""
    safety_pairs, helpfulness_pairs = (held_out_pairs(PAIRS, seed, kind=k) for k in ("safety", "helpfulness"))

    async def on_demo_models(url: str) -> tuple[list[Judged], PairFigures, FirstQuestions]:
        async with AsyncClient(f"{url}/v1") as client:
            questions = await ask_first_questions(client)
            judged = await sample_and_judge(client, prompts, seed)
            return judged, await of_pairs.of_safety_model(client, safety_pairs, judged), questions

    async def on_helpfulness_model(url: str) -> PairFigures:
        async with AsyncClient(f"{url}/v1") as client:
            return await of_pairs.of_helpfulness_model(client, helpfulness_pairs, judged)

    with winnow_server(FLAGS, logs / "serve.log") as url:
        judged, safety, questions = asyncio.run(on_demo_models(url))
    with winnow_server(HELPFULNESS_FLAGS, logs / "serve-helpfulness.log") as url:
        helpfulness = asyncio.run(on_helpfulness_model(url))
    return Results(evaluate(judged, seed), {"safety": safety, "helpfulness": helpfulness}, questions)


def main(
    out: Annotated[Path, typer.Option(help="Folder for demo-eval.md and demo-eval.png.")] = Path("docs"),
    prompts: Annotated[int, typer.Option(min=1, help="Number of held-out prompts.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the prompts and the candidates.")] = 0,
) -> None:
    """Measure the demo models on held-out prompts, and write a page and a plot."""
    try:
        with tempfile.TemporaryDirectory(prefix="winnow-demo-eval-") as logs:
            results = measure(prompts, seed, Path(logs))
    except (ServerFailed, WinnowClientError) as error:
        sys.exit(f"demo-eval: {error}")
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (out / "demo-eval.md").write_text(text, encoding="utf-8")
    plot(results.evaluation, out / "demo-eval.png")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
